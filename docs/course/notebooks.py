"""Makes the notebooks of the course from its chapters: text, and code to run, without outputs.

python docs/course/notebooks.py

Excerpts of the source and shell commands stay text. A picture that a cell saves is shown after it.
"""

import json
import re
from pathlib import Path

COURSE = Path(__file__).resolve().parent
FOLDER = COURSE / "notebooks"
CHAPTERS = ("01", "03", "05", "06", "07", "09", "11")
FENCE = re.compile(
    r"^```python\n(?!# (?:tinyldm/[\w/]+|train|sample)\.py\n)(.*?)^```\n?", re.S | re.M
)
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\(([^)\s]+)\)", re.DOTALL)  # or a link
ABOUT = """\
*This notebook is made of [chapter {number} of the course](../{name}) by
`python docs/course/notebooks.py`. Run it in a clone of the repository, whose packages are
installed by `pip install -c constraints.txt -e ".[docs]"`.*
"""
START = """\
# runs/ and data/ lie at the top of the clone, wherever this notebook is opened
import os
from pathlib import Path

for folder in (Path.cwd(), *Path.cwd().parents):
    if (folder / "train.py").is_file() and (folder / "tinyldm").is_dir():
        os.chdir(folder)
        break
"""


def chapters() -> list[Path]:
    """The chapters that there are a notebook for, as far as they are written."""
    return [path for number in CHAPTERS for path in sorted(COURSE.glob(f"{number}_*.md"))]


def relinked(text: str) -> str:
    """The text with its links as they have to be one folder further down."""

    def moved(found: re.Match) -> str:
        target = found[1]
        if target is None or "://" in target or target.startswith("#"):
            return found[0]
        return f"](../{target})"

    return CODE.sub(moved, text)


def parts(chapter: Path) -> list[tuple[str, str]]:
    """(kind, text) of each cell, in order; kind is 'markdown' or 'code'."""
    pieces = FENCE.split(chapter.read_text(encoding="utf-8"))  # text, code, text, ..., text
    about = ABOUT.format(number=int(chapter.name[:2]), name=chapter.name)
    cells = [("markdown", about), ("code", START)]
    for number, piece in enumerate(pieces):
        if not piece.strip():
            continue
        if number % 2 == 0:
            cells.append(("markdown", relinked(piece)))
            continue
        cells.append(("code", piece))
        saved = re.findall(r"\.save\(\"([\w./-]+\.png)\"\)", piece)
        if saved:
            shown = "".join(f'display(Image("{name}"))\n' for name in saved)
            cells.append(("code", f"from IPython.display import Image, display\n\n{shown}"))
    return cells


def notebook(chapter: Path) -> str:
    """The file of a chapter's notebook, in format 4.5."""
    cells = []
    for number, (kind, text) in enumerate(parts(chapter)):
        cell = {"cell_type": kind, "id": f"cell-{number:02}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append({**cell, "source": text.strip("\n").splitlines(keepends=True)})
    content = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the notebooks."""
    FOLDER.mkdir(exist_ok=True)
    for chapter in chapters():
        file = FOLDER / f"{chapter.stem}.ipynb"
        file.write_text(notebook(chapter), encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
