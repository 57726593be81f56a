"""The tables of editing.md and adapting.md, of what was measured.

    python docs/tables.py

editing_scores.py, adapting.py and adapting_iclevr.py keep what they measure in editing.json and
adapting.json, and this writes it between the marks of the pages. in_brief.py does so for the table
of methods.md that has all methods. So no figure is copied by hand.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from written import kept, put, rounded, share

DOCS = Path(__file__).parent
TOY, ICLEVR = "toy set", "i-CLEVR"


@dataclass(frozen=True)
class Measured:
    """What a script has kept: cells by set, table, row and name."""

    cells: Mapping[tuple[str, str, str], Mapping[str, str]]

    @staticmethod
    def of(file: Path) -> "Measured":
        rows = kept(file)
        return Measured({(row["on"], row["table"], row["row"]): row["cells"] for row in rows})

    def cell(self, on: str, table: str, row: str, key: str) -> str:
        """As it was written; nothing if it was not measured."""
        return self.cells.get((on, table, row), {}).get(key, "")

    def share(self, on: str, table: str, row: str, key: str) -> str:
        """The same with two digits behind the point."""
        found = self.cell(on, table, row, key)
        return share(found) if found else ""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of a page."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# ---- editing.md


def another_prompt(found: Measured) -> str:
    """Image to image, and inversion, at several strengths."""
    name = "another prompt"
    rows = [row for on, part, row in found.cells if (on, part) == (TOY, name)]
    lines = [
        [
            row,
            found.share(TOY, name, row, "shape"),
            found.share(TOY, name, row, "eyes"),
            found.cell(TOY, name, row, "PSNR"),
            found.share(ICLEVR, name, row, "labels"),
            found.cell(ICLEVR, name, row, "PSNR"),
        ]
        for row in rows
    ]
    return table([name, "toy set: shape", "eyes", "nearness", "i-CLEVR: labels", "nearness"], lines)


def there_and_back(found: Measured) -> str:
    """Inversion, and back with the same prompt."""
    name = "inversion and back, without guidance"
    rows = [row for on, part, row in found.cells if (on, part) == (TOY, name)]
    lines = [[row, *(found.cell(on, name, row, "PSNR") for on in (TOY, ICLEVR))] for row in rows]
    return table([name, TOY, ICLEVR], lines)


def composition(found: Measured) -> str:
    """One prompt, and several that say the same."""
    rows = {
        "one prompt": ("one prompt", "one prompt"),
        "two captions; three labels": ("2 prompts", "3 prompts"),
    }
    return scores(found, "composition", rows)


def scores(
    found: Measured,
    name: str,
    rows: Mapping[str, tuple[str, str]],
    keys: tuple[str, ...] = ("shape", "eyes"),
) -> str:
    """A table of some attributes on the toy set, and of labels on i-CLEVR.

    rows: what a row is called -> what it was measured as on each set
    """
    lines = []
    for said, (toy, scene) in rows.items():
        told = [found.share(TOY, name, toy, key) for key in keys]
        lines.append([said, *told, found.share(ICLEVR, name, scene, "labels")])
    first, *others = keys
    return table([name, f"toy set: {first}", *others, "i-CLEVR: labels"], lines)


def as_measured(found: Measured, name: str, keys: tuple[str, ...] = ("shape", "eyes")) -> str:
    """scores() of all rows of a table, under their own names."""
    rows = {row: (row, row) for on, part, row in found.cells if (on, part) == (TOY, name)}
    return scores(found, name, rows, keys)


def filled(found: Measured) -> str:
    """Inpainting, and resampling."""
    name = "the lower half"
    lines = []
    for on, part, row in found.cells:
        if (on, part) == (TOY, name):
            told = [found.cell(TOY, name, row, key) for key in ("calls", "seam")]
            told += [found.share(TOY, name, row, key) for key in ("shape", "eyes")]
            told.append(found.cell(ICLEVR, name, row, "seam"))
            lines.append([row, *told, found.share(ICLEVR, name, row, "labels")])
    head = ["calls", "toy set: seam", "shape", "eyes", "i-CLEVR: seam", "labels"]
    return table([name, *head], lines)


# ---- adapting.md

ROWS = {
    "base": "the run alone",
    "grey": "with the LoRA of grey pictures",
    "grey all": "with one of all layers",
    "control": "with the ControlNet",
    "bicubic": "bicubic",
    "super": "drawn",
    "VAE": "the true pictures, through the VAE",
    "grey VAE": "the true pictures without colours, through the VAE",
}
DIGITS = {"channels": 1, "PSNR": 2, "PSNR, small again": 2}
"""Behind the point; all others are shares, with three."""
UNITS = {"PSNR": " dB", "PSNR, small again": " dB"}
COLUMNS = {
    "channels": "difference of the channels",
    "F1": "F1 with the asked ones, within a pixel",
    "PSNR, small again": "PSNR, made small again",
}


def shown(cell: str, key: str) -> str:
    """A cell with as many digits as its column has, and its unit."""
    if key in DIGITS:
        return rounded(cell, DIGITS[key]) + UNITS.get(key, "")
    return cell.replace("0.", ".")


def adapted(found: Measured, on: str, name: str, first: str, keys: list[str]) -> str:
    """A table of adapting.md; first: the head of its first column; keys: as they were measured."""
    lines = []
    for where, part, row in found.cells:
        if (where, part) == (on, name):
            cells = found.cells[on, name, row]
            lines.append([ROWS[row], *(shown(cells[key], key) for key in keys)])
    return table([first, *(COLUMNS.get(key, key) for key in keys)], lines)


# ---- pages

ADAPTED = """\
toy LoRA|toy set|LoRA|64 unseen monsters|channels|colour|shape|feature|eyes|action
LoRA|i-CLEVR|LoRA|32 unseen sets of labels|channels|shapes|labels
toy outlines|toy set|outlines|outlines of 64 unseen monsters|F1|colour|shape|feature|eyes|action
outlines|i-CLEVR|outlines|outlines of 32 unseen pictures of i-CLEVR|F1|labels
toy larger|toy set|super-resolution|four times larger, 64 monsters|PSNR|SSIM|PSNR, small again
larger|i-CLEVR|super-resolution|four times larger, 32 pictures|PSNR|SSIM|PSNR, small again|labels
"""
"""Mark in adapting.md, set, table, head of the first column, keys of the others."""


def write(docs: Path = DOCS) -> None:
    """Put the tables into the pages of a folder."""
    editing, learned = Measured.of(DOCS / "editing.json"), Measured.of(DOCS / "adapting.json")
    page = docs / "editing.md"
    put(page, "filled", filled(editing))
    put(page, "another prompt", another_prompt(editing))
    put(page, "there and back", there_and_back(editing))
    put(page, "composition", composition(editing))
    put(page, "halfway", as_measured(editing, "halfway"))
    put(page, "two in one", as_measured(editing, "two in one", ("colour", "shape")))
    for line in ADAPTED.splitlines():
        mark, on, name, first, *columns = line.split("|")
        put(docs / "adapting.md", mark, adapted(learned, on, name, first=first, keys=columns))


if __name__ == "__main__":
    write()
