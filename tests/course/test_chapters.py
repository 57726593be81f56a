"""The chapters: their code is the source or runs, their commands parse, their parts are there."""

import os
import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from textwrap import dedent, indent

import fresh
import pytest
import torch
from PIL import Image

import sample
from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Parser
from tinyldm.training.options import train_parser

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "docs" / "course"
CHAPTERS = sorted(COURSE.glob("[0-9][0-9]_*.md"))
PAGES = [COURSE / "index.md", *CHAPTERS]
EXCERPT = re.compile(r"# ((?:tinyldm/[\w/]+|train|sample)\.py)\n(.*)", re.DOTALL)
AS_THEY_ARE = {"pip", "git", "cd", "jupyter", "mkdocs"}  # commands that are not ours

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def blocks(page, language):
    """(line number, text) of the page's blocks in a language."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start()].count("\n") + 2, found[1]


def to_run(chapter):
    return [block for block in blocks(chapter, "python") if not EXCERPT.match(block[1])]


def excerpts():
    for chapter in CHAPTERS:
        for line, block in blocks(chapter, "python"):
            if found := EXCERPT.match(block):
                yield pytest.param(found[1], found[2], id=f"{chapter.stem}:{line}")


@pytest.mark.parametrize(("path", "block"), [*excerpts()])
def test_an_excerpt_is_the_source(path, block):
    source = (ROOT / path).read_text(encoding="utf-8")
    assert any(indent(dedent(block), " " * n) in source for n in range(0, 20, 4)), block


def run(chapter):
    """A chapter's names after its blocks; a traceback has the lines of the page."""
    names = {"__name__": chapter.stem}
    state = torch.random.get_rng_state()
    for line, block in to_run(chapter):
        exec(compile("\n" * (line - 1) + block, str(chapter), "exec"), names)
    torch.random.set_rng_state(state)
    return names


@pytest.mark.slow
@each_chapter
def test_the_code_of_a_chapter_runs(chapter, place):
    run(chapter)


# ---- commands


def parser_of(words):
    """The parser of a command, and what is left for it; None where the command is not ours."""
    match words:
        case ["python", "train.py", *rest]:
            return train_parser(), rest
        case ["python", "sample.py", *rest]:
            return sample.parser(), rest
        case ["python", "-m", "tinyldm", name, *rest]:
            assert name in COMMANDS, name
            parser = Parser(prog=name)
            import_module(f"tinyldm.commands.{name}").add_arguments(parser)
            return parser, rest
        case ["python", script, *rest] if script.startswith("docs/"):
            assert (ROOT / script).is_file(), script
            return figure_parser() if "/figures_" in script else None, rest
        case [name, *rest]:
            assert name in AS_THEY_ARE, words
            return None, rest


def figure_parser():
    parser = ArgumentParser()
    parser.add_argument("--run")
    parser.add_argument("--out")
    return parser


def commands():
    for page in PAGES:
        found = list(blocks(page, "sh"))
        text = page.read_text(encoding="utf-8")
        for inline in re.finditer(r"`(python [^`]+)`", text):
            found.append((text[: inline.start()].count("\n") + 1, inline[1]))
        for line, block in found:
            for command in block.replace("\\\n", " ").splitlines():
                if shlex.split(command, comments=True):
                    yield pytest.param(command, id=f"{page.stem}:{line}:{command[:40]}")


@pytest.mark.parametrize("command", [*commands()])
def test_a_command_of_a_page_parses(command):
    parser, rest = parser_of(shlex.split(command, comments=True))
    if parser is not None:
        parser.parse_args(rest)


# ---- parts


@each_chapter
def test_a_chapter_has_its_parts(chapter):
    text = chapter.read_text(encoding="utf-8")
    number = int(chapter.stem[:2])
    assert text.startswith(f"# {number}. ")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for part in ("The code", "What to remember", "Exercises", "Read on"):
        assert part in sections, part
    assert len(text.splitlines()) <= 240
    for line, block in blocks(chapter, "python"):
        assert max(map(len, block.splitlines())) <= 100, line
    assert f"figures/{chapter.stem[:2]}_" in text
    solutions = f"solutions/{chapter.stem}.py"
    assert solutions in text
    assert (COURSE / solutions).is_file()
    assert (Path(__file__).parent / f"test_solutions_{chapter.stem[:2]}.py").is_file()


@each_chapter
def test_the_table_of_contents_leads_to_a_chapter(chapter):
    title = chapter.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    assert f"[{title}]({chapter.name})" in (COURSE / "index.md").read_text(encoding="utf-8")


# ---- figures


def figures():
    return sorted((COURSE / "figures").glob("*.png"))


def test_every_figure_is_shown_is_small_and_has_its_script():
    shown = "".join(page.read_text(encoding="utf-8") for page in CHAPTERS)
    for file in figures():
        number = file.name[:2]
        assert f"](figures/{file.name})" in shown, file.name
        assert f"python docs/course/figures_{number}.py" in shown, file.name
        assert file.stat().st_size <= 160 * 1024, file.name
        with Image.open(file) as picture:
            assert picture.width <= 1200, file.name


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(COURSE.glob("figures_*.py")), ids=lambda p: p.stem)
def test_a_script_draws_the_figures_of_its_chapter(script, place):
    words = [script, "--run", "runs/toy-1", "--out", "figures"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = fresh.run(words, place, environment, strict=True)
    assert done.returncode == 0, done.stderr
    number = script.stem.removeprefix("figures_")
    drawn = sorted(file.name for file in (place / "figures").iterdir())
    assert drawn == [file.name for file in figures() if file.name.startswith(f"{number}_")]
