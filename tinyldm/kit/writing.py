"""Writes the assignment kit: the library with blanks, the instructions, the grader."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinyldm.installation import STORIES, story_file
from tinyldm.kit.exercises import Exercise

HERE = Path(__file__).parent
LEFT_OUT = shutil.ignore_patterns("__pycache__", "kit", "stories", "*.pyc")


def write_kit(folder: Path, exercises: Sequence[Exercise]) -> None:
    """Write the kit of these exercises to a folder that is there and empty."""
    package = folder / "tinyldm"
    shutil.copytree(HERE.parent, package, ignore=LEFT_OUT)
    (package / "commands" / "exercise.py").unlink()
    entry = package / "__main__.py"
    rows = entry.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if not row.strip().startswith('"exercise":')]
    entry.write_text("".join(kept), encoding="utf-8")
    for name in STORIES:
        shutil.copy(story_file(name), folder)
    for exercise in exercises:
        file = package / exercise.module
        file.write_text(blanked(file.read_text(encoding="utf-8"), exercise), encoding="utf-8")
    lines = {}
    for exercise in exercises:  # where several are in one file, the last decides the lines
        text = (package / exercise.module).read_text(encoding="utf-8")
        lines[exercise.name] = [find(text, name).lineno for name in exercise.functions]
    shutil.copytree(HERE / "grading", folder / "grading", ignore=LEFT_OUT)
    shutil.copy(HERE / "templates" / "grade.txt", folder / "grade.py")
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    page = templates.get_template("README.md").render(exercises=exercises, lines=lines)
    (folder / "README.md").write_text(page, encoding="utf-8")


def blanked(text: str, exercise: Exercise) -> str:
    """A module with the bodies of an exercise's functions blank; signatures, docstrings stay."""
    for name in exercise.functions:
        function = find(text, name)
        body = function.body[1:] if ast.get_docstring(function) else function.body
        first = min(node.lineno for node in body)
        while text.splitlines()[first - 2].strip().startswith("#"):
            first -= 1  # a comment above the first statement gives it away
        indent = " " * body[0].col_offset
        blank = [
            f"{indent}# Exercise {exercise.name}: write this function; see README.md.",
            f'{indent}raise NotImplementedError("{exercise.name}: {name}")',
        ]
        rows = text.splitlines()
        rows[first - 1 : function.end_lineno] = blank
        text = "\n".join(rows) + "\n"
    return text


def find(text: str, name: str) -> ast.FunctionDef:
    """The function of a module by its dotted name."""
    body: list[ast.stmt] = ast.parse(text).body
    for part in name.split("."):
        node = next(
            each
            for each in body
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == part
        )
        body = node.body
    assert isinstance(node, ast.FunctionDef)
    return node
