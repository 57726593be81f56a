"""python -m tinyldm toy: the toy monsters and the tiny frozen models that ship in the package."""

from __future__ import annotations

from pathlib import Path

from tinyldm.data.toy import write_toy
from tinyldm.jobs.cli import Parser


def add_arguments(parser):
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True, parser_class=Parser)
    text = "draw the toy monsters in the format of the monster assignment"
    draw = parts.add_parser("draw", help=text, description=text)
    draw.add_argument("--out", type=Path, required=True, help="the folder to write")
    draw.add_argument("--seed", type=int, default=0, help="varies drawings and descriptions")
    draw.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")


def run(options):
    PARTS[options.part](options)


def draw(options):
    write_toy(options.out, seed=options.seed, overwrite=options.overwrite)
    print(f"wrote {options.out}")


PARTS = {"draw": draw}
