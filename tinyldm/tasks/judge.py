"""python -m tinyldm evaluator: train the network that judges what was drawn, on the real images of an assignment."""

from __future__ import annotations

from pathlib import Path

from tinyldm.data.transforms import parse_size
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.tasks.evaluator import KINDS, train_evaluator
from tinyldm.tasks.table import read_examples


def add_arguments(parser):
    """Its one part, train, and the options of that."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    text = "train it, measure it on images held out, and save it (about six minutes on two cores)"
    train = parts.add_parser("train", help=text, description=text)
    train.add_argument("--data", metavar="FOLDER", required=True, help="the assignment's folder")
    train.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the folder to write")
    train.add_argument("--size", type=parse_size, default="64", help="pixels to squash them to: 64, or WIDTHxHEIGHT")
    train.add_argument("--steps", type=int, default=2500, help="optimiser steps")
    train.add_argument("--batch-size", type=int, default=64, help="images a step")
    train.add_argument("--lr", type=float, default=2e-3, help="highest learning rate")
    train.add_argument("--skip-bad", action="store_true", help="leave out images that are missing")
    train.add_argument("--seed", type=int, default=0, help="of weights and order")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    train.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")


def run(options):
    """Train, save, tell the held-out scores."""
    for name in ("steps", "batch_size", "lr"):
        if getattr(options, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected more than 0")
    check_empty(options.out, options.overwrite)
    examples = read_examples(options.data, skip_bad=options.skip_bad)
    if examples.task not in KINDS:
        raise InputError(f"--data {options.data}: no evaluator for --task {examples.task}, only for {', '.join(KINDS)}")
    evaluator = train_evaluator(examples, options.size, options.steps, options.batch_size, options.lr, options.seed,
                                pick_device(options.device))  # fmt: skip
    evaluator.save(options.out)
    held_out = ", ".join(f"{name} {value:.4f}" for name, value in evaluator.held_out.items())
    print(f"{options.out}: on {evaluator.images} images held out: {held_out}")


def check_empty(out: Path, overwrite: bool) -> None:
    """InputError where a folder to write holds something, unless it may be overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise InputError(f"--out {out}: not empty; choose another folder or give --overwrite")
