"""python -m tinyldm exercise: the library with blanks for students to fill, and a grader."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinyldm.cli import Parser
from tinyldm.errors import InputError, say
from tinyldm.kit.exercises import EXERCISES

EXAMPLES = """examples:
  python -m tinyldm exercise homework
  python -m tinyldm exercise homework --only ddim ddpm guidance
then, in that folder:
  python grade.py
  python grade.py ddim
"""


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm exercise."""
    parser.end_with(EXAMPLES)
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, a new one")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[exercise.name for exercise in EXERCISES],
        metavar="NAME",
        help="the exercises to set (default: all): "
        + ", ".join(exercise.name for exercise in EXERCISES),
    )


def run(options: argparse.Namespace) -> None:
    """Write the kit, and say how to go on."""
    from tinyldm.files import draft_folder, making
    from tinyldm.kit.writing import write_kit

    out = options.out
    if out.exists():
        raise InputError(f"{out}: exists already; expected a new folder")
    chosen = [each for each in EXERCISES if options.only is None or each.name in options.only]
    with making(out.parent), draft_folder(out) as draft:
        write_kit(draft, chosen)
        draft.rename(out)
    say(f"{out}: {len(chosen)} exercises; README.md explains them, python grade.py grades them")
