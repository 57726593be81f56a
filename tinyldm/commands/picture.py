"""python -m tinyldm picture: previews over the training, the loss, nearest training images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tinyldm.cli import Parser, whole
from tinyldm.commands.checks import check_file
from tinyldm.errors import say
from tinyldm.folders import owned_file

EXAMPLES = """examples:
  python -m tinyldm picture previews runs/toy-1 --out previews.gif
      or previews.png: ten of them side by side
  python -m tinyldm picture curve runs/toy-1 --out loss.svg
  python -m tinyldm picture neighbours samples/test --train data/toy/train --clip tiny --out n.png
"""
PARTS = {
    "previews": "the previews of a run in the course of its training, as .gif or side by side",
    "curve": "the loss curve of a run, as .svg",
    "neighbours": "does it memorise? samples beside the training images nearest to them",
}
SUFFIXES = {
    "previews": (".gif", ".png", ".jpg"),
    "curve": (".svg",),
    "neighbours": (".png", ".jpg"),
}


def add_arguments(parser: Parser) -> None:
    """The parts of the command and their options."""
    parser.end_with(EXAMPLES)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, text in PARTS.items():
        part = parts.add_parser(name, help=text, description=text)
        if name == "neighbours":
            add_neighbours_arguments(part)
        else:
            part.add_argument("run", metavar="RUN", type=Path, help="the run folder")
        part.add_argument(
            "--out", metavar="FILE", type=Path, required=True, help="the picture to write"
        )
        part.add_argument("--overwrite", action="store_true", help="replace that file")


def add_neighbours_arguments(part: Parser) -> None:
    """The options of neighbours alone."""
    from tinyldm.scores.metrics import CLIP

    part.add_argument("images", metavar="IMAGES", type=Path, help="the folder of samples")
    part.add_argument(
        "--train", metavar="DIR", type=Path, required=True, help="the folder of training images"
    )
    part.add_argument(
        "--clip",
        default=CLIP,
        help="the CLIP that decides which images are near: tiny, a hub name or a folder",
    )
    part.add_argument(
        "--rows",
        type=whole(1, 1000),
        default=8,
        help="how many samples to show, the most suspicious first",
    )
    part.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options: Namespace) -> None:
    """Draw the picture asked for, and print where it is."""
    out = options.out
    check_file(out, SUFFIXES[options.part], options.overwrite)
    with owned_file(out):
        draw(options, out)
    say(out)


def draw(options: Namespace, out: Path) -> None:
    """Draw the picture asked for into a file."""
    from tinyldm.pages.pictures import draw_curve, draw_neighbours, draw_previews

    if options.part == "previews":
        draw_previews(options.run, out)
    elif options.part == "curve":
        draw_curve(options.run, out)
    else:
        found = draw_neighbours(
            options.images,
            options.train,
            out,
            clip=options.clip,
            rows=options.rows,
            device=options.device,
        )
        say(describe(found))


def describe(found: dict[str, float]) -> str:
    """What memorised() found, in words."""
    return (
        "median cosine with the nearest training image: "
        f"{found['cosine of samples']:.3f}; of training images with another one: "
        f"{found['cosine of training images']:.3f}; {found['share']:.1%} of the samples are nearer "
        "than 95 % of those (about 5 % where nothing is memorised)"
    )
