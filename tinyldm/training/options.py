"""The command line of train.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyldm.cli import Parser, add_options, whole
from tinyldm.training.settings import TrainSettings

DESCRIPTION = "Train a latent-diffusion model. Counts and periods are optimiser steps."

EXAMPLES = """examples:
  python train.py --cfg-drop 0.1                       toy monsters, everything shipped, offline
  python train.py --data hw6                           the monster assignment, 256x256
  python train.py --data hw6 --vae tiny --text-encoder tiny --size 64    without any download
  python train.py --resume                             continue the latest run
  python train.py --lora 4 --from runs/toy-1 --data ghosts    adapt a run to other pictures
  python train.py --network my_module:build           a network of your own
  torchrun --nproc-per-node 8 train.py --data hw6 --batch-size 512      eight GPUs
With --vae tiny and pictures of up to 128 pixels, the network is that of the toy monsters, trained
by AdamW for 6000 steps at a learning rate of 1e-3. So it is for small landscapes, with 2000 steps,
and for labels, with 7800 steps of 64 pictures at a learning rate of 1.5e-3.
"""


def train_parser() -> Parser:
    """The parser of train.py. An option that is not given is absent from what it returns."""
    parser = Parser(prog="train.py", description=DESCRIPTION)
    add_train_options(parser)
    return parser


def add_train_options(parser: Parser) -> None:
    """Add the options of a training to a parser, which keeps those alone that are given."""
    parser.end_with(EXAMPLES)
    parser.keep_only_given()
    add_options(parser, TrainSettings)
    groups = {group.title: group for group in parser._action_groups}
    groups["training"].add_argument(
        "--epochs",
        type=whole(1, 10**6),
        metavar="N",
        help="length of the training in passes over the data, instead of --max-steps",
    )
    run = groups["run"]
    run.add_argument(
        "--out", metavar="NAME", help="run folder (default: runs/NAME-N, the next free number)"
    )
    run.add_argument(
        "--resume", action="store_true", help="continue the run at --out, or else the latest one"
    )
    run.add_argument(
        "--from", dest="start", metavar="RUN", help="the run to adapt, or one of its checkpoints"
    )
    run.add_argument("--overwrite", action="store_true", help="replace the run at --out")


def parse_options(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The options that were given, by name."""
    return vars(train_parser().parse_args(arguments))
