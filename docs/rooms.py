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
CORE = (*HEART, "autoencoder", "frozen", "data", "tasks", "training", "sampling")
GROUND = ("errors", "files", "device", "weights", "randomness", "cli", "__init__", "__main__")
LEAVES = ("scores", "stage_one", "toy", "compat", "pages", "commands")


def sizes(file: Path) -> tuple[int, int]:
    """Lines of a module, and how many of them are code: neither blank, comment nor docstring."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    docstrings: set[int] = set()  # the numbers of their lines
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings |= set(range(node.lineno, node.end_lineno + 1))
    code = 0
    for number, line in enumerate(lines, 1):
        blank_or_comment = line.strip() == "" or line.strip().startswith("#")
        if not blank_or_comment and number not in docstrings:
            code += 1
    return len(lines), code


def table() -> str:
    """The rooms in the order of the house, with lines and lines of code."""
    found: dict[str, list[tuple[int, int]]] = {}
    for file in sorted((ROOT / "tinyldm").rglob("*.py")):
        room = file.relative_to(ROOT / "tinyldm").with_suffix("").parts[0]
        found.setdefault(room, []).append(sizes(file))

    def row(name: str, rooms: tuple[str, ...]) -> str:
        modules = [size for room in rooms for size in found[room]]
        lines = sum(size[0] for size in modules)
        code = sum(size[1] for size in modules)
        return f"| {name} | {len(modules)} | {lines:,} | {code:,} |"

    assert found.keys() == {*CORE, *GROUND, *LEAVES}, found.keys()
    rows = ["| room | modules | lines | of them code |", "| --- | --- | --- | --- |"]
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
