"""python -m tinyldm submit: check a folder against what an assignment asks for, and zip it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tinyldm.cli import Parser, as_typed, parse_size
from tinyldm.commands.checks import check_file
from tinyldm.errors import InputError, say

EXAMPLES = """examples:
  python -m tinyldm submit submission --prompts test.json --out submission.zip
  python -m tinyldm submit submission --prompts generate.csv --out images.zip --inside generated_images
"""  # noqa: E501 - a command to copy


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm submit."""
    parser.end_with(EXAMPLES)
    parser.add_argument(
        "images", metavar="IMAGES", type=Path, help="the folder of images to hand in"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        type=Path,
        required=True,
        help="test.json, generate.csv or label_to_img.json",
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="SIZE",
        help="pixels, such as 64, or WIDTHxHEIGHT (default: the assignment's, 256 for the "
        "monsters, 64 for the animal-object pairs and i-CLEVR, 512x384 for landscapes)",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the .zip file to write (default: only check)"
    )
    parser.add_argument(
        "--inside",
        metavar="NAME",
        default="",
        help="the folder in the archive that holds the images (default: none)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the .zip")


def run(options: Namespace) -> None:
    """Check the folder, and write the archive if asked to."""
    from tinyldm.pages.submit import check_submission, write_archive
    from tinyldm.tasks.base import task_of_prompts

    task = task_of_prompts(options.prompts)
    size = options.size or task.size_handed_in(options.prompts)
    if size is None:
        raise InputError(f"--size: expected, for {options.prompts} implies none")
    check_options(options)
    names = [request.name for request in task.requests(options.prompts)]
    files = check_submission(options.images, names, size)
    where = ""
    if options.out is not None:
        write_archive(files, options.out, options.inside)
        where = f", in {options.out}"
    say(
        f"{options.images}: {len(files)} images of {as_typed(size)}, "
        f"as {options.prompts} asks for{where}"
    )


def check_options(options: Namespace) -> None:
    """InputError for an archive that cannot be written as asked, before anything is read."""
    out, inside = options.out, options.inside
    if out is not None:
        check_file(out, (".zip",), options.overwrite)
    elif inside or options.overwrite:
        raise InputError("--inside, --overwrite: belong to --out FILE.zip")
    if inside.startswith(".") or any(sign in inside for sign in "/\\:"):
        raise InputError(f"--inside {inside}: expected a plain name")
