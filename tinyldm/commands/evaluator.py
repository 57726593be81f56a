"""python -m tinyldm evaluator: train the network that judges drawn images."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tinyldm.cli import parse_size
from tinyldm.errors import InputError
from tinyldm.files import locked


def add_arguments(parser):
    """The one part of the command, train, and its options."""
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
    """Train, save, and print the held-out scores."""
    from tinyldm.device import pick_device
    from tinyldm.scores.evaluator import train_evaluator
    from tinyldm.scores.old_tasks import find_judge
    from tinyldm.tasks.table import read_examples

    check_numbers(options, above=("steps", "batch_size", "lr"))
    check_empty(options.out, options.overwrite)
    examples = read_examples(options.data, skip_bad=options.skip_bad)
    if find_judge(examples.task, examples.names) is None:
        raise InputError(f"--data {options.data}: --task {examples.task} has no evaluator")
    if options.skip_bad:
        leave_out_broken(examples)
    with claimed(options.out):
        evaluator = train_evaluator(
            examples,
            options.size,
            options.steps,
            options.batch_size,
            lr=options.lr,
            seed=options.seed,
            device=pick_device(options.device),
        )
        evaluator.save(options.out)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in evaluator.held_out.items())
    print(f"{options.out}: on {evaluator.images} images held out: {scores}")


def check_empty(out: Path, overwrite: bool) -> None:
    """InputError: a folder to write is not empty and may not be overwritten."""
    if overwrite or not out.exists():
        return
    if out.is_dir() and all(file.name == ".lock" for file in out.iterdir()):
        return
    raise InputError(f"--out {out}: not empty; choose another folder or give --overwrite")


def claimed(out: Path) -> AbstractContextManager:
    """Lock a folder for this process. Fails before training starts if it cannot be written."""
    out.mkdir(parents=True, exist_ok=True)
    return locked(out / ".lock", busy=f"--out {out}: another process is training there")


def check_numbers(options, above=(), least=()) -> None:
    """InputError: an option of `above` is not above 0, or one of `least` or the seed below 0."""
    for name in (*above, *least, "seed"):
        value = getattr(options, name)
        if value is None:
            continue
        zero_will_do = name not in above
        fits = 0 < value < 2**63  # which NaN does not
        if not fits and not (value == 0 and zero_will_do):
            lowest = "from 0 on" if zero_will_do else "above 0"
            option = name.replace("_", "-")
            raise InputError(f"--{option} {value}: expected a number {lowest}")


def leave_out_broken(examples) -> None:
    """Take out the examples whose image, or map, cannot be read, and print how many those are."""
    from tinyldm.scores import old_tasks

    old_tasks.leave_out_broken(examples)
