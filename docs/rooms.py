"""Prints the table of rooms in docs/design.md: python docs/rooms.py

With --write it puts the table into the page, between its two marks.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
MARKS = ("<!-- rooms -->\n", "<!-- end of rooms -->\n")

HEART = ("condition", "diffusion", "nn")
CORE = (*HEART, "autoencoder", "methods", "frozen", "data", "tasks", "training", "sampling")
GROUND = (
    *("errors", "files", "folders", "typed", "weights", "signals", "device", "randomness", "cli"),
    *("processes", "spelling", "installation", "keywords", "__init__", "__main__"),
)
LEAVES = ("scores", "stage_one", "toy", "compat", "pages", "kit", "playground", "commands", "model")


def sizes(file: Path) -> tuple[int, int, int, int]:
    """Lines of a module, and how many of them are words, declarations and statements.

    Words are docstrings, comments and blank lines; declarations are imports and the heads of
    functions and classes; statements are what is left.
    """
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    words: set[int] = set()  # numbers of lines
    declared: set[int] = set()
    for number, line in enumerate(lines, 1):
        if line.strip() == "" or line.strip().startswith("#"):
            words.add(number)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            words |= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            declared |= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            declared |= set(range(node.lineno, node.body[0].lineno))
    declared -= words
    return len(lines), len(words), len(declared), len(lines) - len(words) - len(declared)


def table() -> str:
    """The rooms in the order of the house, with their lines and what these are."""
    found: dict[str, list[tuple[int, int, int, int]]] = {}
    for file in sorted((ROOT / "tinyldm").rglob("*.py")):
        room = file.relative_to(ROOT / "tinyldm").with_suffix("").parts[0]
        found.setdefault(room, []).append(sizes(file))

    def row(name: str, rooms: tuple[str, ...]) -> str:
        modules = [size for room in rooms for size in found[room]]
        sums = [sum(counts) for counts in zip(*modules, strict=True)]
        return f"| {name} | {len(modules)} | " + " | ".join(f"{n:,}" for n in sums) + " |"

    assert found.keys() == {*CORE, *GROUND, *LEAVES}, found.keys()
    rows = ["| room | modules | lines | words | declarations | statements |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    rows += [row(room, (room,)) for room in CORE]
    rows.append(row("files, weights, options, devices, ...", GROUND))
    rows.append(row("**the core**", CORE + GROUND))
    rows.append(row("*of it the heart: condition, diffusion, nn*", HEART))
    rows += [row(room, (room,)) for room in LEAVES]
    rows.append(row("**all**", CORE + GROUND + LEAVES))
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        PAGE.write_text(before + MARKS[0] + table() + MARKS[1] + after, encoding="utf-8")
    print(table(), end="")
