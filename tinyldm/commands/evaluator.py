"""python -m tinyldm evaluator: train the network that judges drawn images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tinyldm.cli import BATCH_SIZE, SEED, STEPS, Parser, parse_size, real
from tinyldm.errors import say


def add_arguments(parser: Parser) -> None:
    """The one part of the command, train, and its options."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    text = (
        "train a judge, measure it on held-out images, and save it (about six minutes on two cores)"
    )
    train = parts.add_parser("train", help=text, description=text)
    train.add_argument(
        "--data", metavar="FOLDER", required=True, help="the folder of the assignment"
    )
    train.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help="the folder to write"
    )
    train.add_argument(
        "--size",
        type=parse_size,
        default="64",
        help="size in pixels to squash the images to: 64, or WIDTHxHEIGHT",
    )
    train.add_argument(
        "--task", metavar="TASK", help="the task of the data, as for train.py (default: detected)"
    )
    train.add_argument("--steps", type=STEPS, help="optimiser steps (default: 2500; 1000 for maps)")
    train.add_argument(
        "--batch-size", type=BATCH_SIZE, help="images per step (default: 64; 32 for maps)"
    )
    train.add_argument(
        "--lr", type=real(0, 1000, exclusive=True), default=2e-3, help="highest learning rate"
    )
    train.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out missing or broken images, and count them",
    )
    train.add_argument("--seed", type=SEED, default=0, help="seed of weights and order")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    train.add_argument(
        "--overwrite", action="store_true", help="write into a folder that is not empty"
    )


def run(options: Namespace) -> None:
    """Train, save, and print the held-out scores."""
    from tinyldm.device import pick_device
    from tinyldm.folders import check_free, owned
    from tinyldm.scores.evaluator import EVALUATOR, find_judge, train_evaluator
    from tinyldm.tasks.base import read_examples

    check_free(options.out, EVALUATOR, options.overwrite)
    task, examples = read_examples(options.data, skip_bad=options.skip_bad, task=options.task)
    name = options.task or task.name
    find_judge(name, examples.names)  # an InputError where there is none
    say(examples.summary)
    device = pick_device(options.device)
    if options.skip_bad:
        examples = examples.checked()
    with owned(options.out, EVALUATOR, "--out"):
        evaluator = train_evaluator(
            name,
            examples,
            options.size,
            steps=options.steps,
            batch_size=options.batch_size,
            lr=options.lr,
            seed=options.seed,
            device=device,
        )
        evaluator.save(options.out)
    assert evaluator.held_out is not None  # it has just been measured
    scores = ", ".join(f"{name} {value:.4f}" for name, value in evaluator.held_out.items())
    say(f"{options.out}: on {evaluator.images} images held out: {scores}")
