"""python -m tinyldm landscapes: draw landscapes with their maps, in the assignment's format."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tinyldm.cli import SEED, Parser, as_typed, parse_size, whole
from tinyldm.errors import InputError, say


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm landscapes."""
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--train", type=whole(1, 10**6), default=6000, help="pictures to train on")
    parser.add_argument("--test", type=whole(1, 10**6), default=200, help="maps of the test")
    parser.add_argument(
        "--size", type=parse_size, default="128x96", help="size in pixels, WIDTHxHEIGHT"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of shapes and styles")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a folder that this command drew"
    )


def run(options: Namespace) -> None:
    """Write a set of landscapes."""
    from tinyldm.toy.landscapes import write_landscapes

    if min(options.size) < 16:
        raise InputError(f"--size {as_typed(options.size)}: expected at least 16x16")
    write_landscapes(
        options.out,
        options.train,
        options.test,
        options.size,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    say(f"wrote {options.out}")
