"""python -m tinyldm evaluator: train the network that judges what was drawn, on the real images of an assignment."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from tinyldm.cli import parse_size
from tinyldm.data.examples import Examples
from tinyldm.data.images import load_image
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.files import locked
from tinyldm.scores.evaluator import KINDS, train_evaluator
from tinyldm.tasks.landscape import load_map, parts
from tinyldm.tasks.table import read_examples


def add_arguments(parser):
    """Its one part, train, and the options of that."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    text = "train it, measure it on images held out, and save it (about six minutes on two cores)"
    train = parts.add_parser("train", help=text, description=text)
    train.add_argument("--data", metavar="FOLDER", required=True, help="the assignment's folder")
    train.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help="the folder to write"
    )
    train.add_argument(
        "--size",
        type=parse_size,
        default="64",
        help="pixels to squash them to: 64, or WIDTHxHEIGHT",
    )
    train.add_argument("--steps", type=int, help="optimiser steps (default: 2500; for maps 1000)")
    train.add_argument("--batch-size", type=int, help="images a step (default: 64; for maps 32)")
    train.add_argument("--lr", type=float, default=2e-3, help="highest learning rate")
    train.add_argument(
        "--skip-bad",
        action="store_true",
        help="count and leave out images that are missing or broken",
    )
    train.add_argument("--seed", type=int, default=0, help="of weights and order")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    train.add_argument(
        "--overwrite", action="store_true", help="write into a folder that is not empty"
    )


def run(options):
    """Train, save, tell the held-out scores."""
    check_numbers(options, above=("steps", "batch_size", "lr"))
    check_empty(options.out, options.overwrite)
    examples = read_examples(options.data, skip_bad=options.skip_bad)
    if examples.task not in KINDS:
        raise InputError(
            f"--data {options.data}: no evaluator for --task {examples.task}, only for {', '.join(KINDS)}"
        )
    if options.skip_bad:
        leave_out_broken(examples)
    with claimed(options.out):
        evaluator = train_evaluator(
            examples,
            options.size,
            options.steps,
            options.batch_size,
            options.lr,
            options.seed,
            pick_device(options.device),
        )
        evaluator.save(options.out)
    held_out = ", ".join(f"{name} {value:.4f}" for name, value in evaluator.held_out.items())
    print(f"{options.out}: on {evaluator.images} images held out: {held_out}")


def check_empty(out: Path, overwrite: bool) -> None:
    """InputError where a folder to write holds something, unless it may be overwritten."""
    if (
        out.exists()
        and not (out.is_dir() and all(file.name == ".lock" for file in out.iterdir()))
        and not overwrite
    ):
        raise InputError(f"--out {out}: not empty; choose another folder or give --overwrite")


def claimed(out: Path):
    """Hold a folder to write, against other processes; one that can't be written to is told before the training."""
    out.mkdir(parents=True, exist_ok=True)
    return locked(out / ".lock", busy=f"--out {out}: another process is training there")


def check_numbers(options, above=(), least=()) -> None:
    """InputError: an option of above that is not more than 0, one of least below 0, a seed that none can be."""
    for name in (*above, *least, "seed"):
        value, lowest = getattr(options, name), "above 0" if name in above else "from 0 on"
        if value is not None and not (
            0 < value < 2**63 or (value == 0 and name not in above)
        ):  # nor is NaN
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a number {lowest}")


def leave_out_broken(examples: Examples) -> None:
    """Take out those whose image, or map, is no good; with the problems that there were they are counted aloud."""
    good, problems = [], [*examples.problems]
    for example in tqdm(examples, "checking images", unit="image", disable=len(examples) < 500):
        try:
            load_image(example.image)
            if examples.format == "landscape":
                load_map(*parts(example.captions[0]))
            good.append(example)
        except InputError as error:
            problems.append(str(error))
    if problems:
        print(f"left out: {len(problems)} images, first {problems[0]}")
    examples[:] = good
