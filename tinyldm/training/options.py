"""The command line of train.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tinyldm.cli import Parser, add_options, whole
from tinyldm.installation import called
from tinyldm.training.settings import TrainSettings

DESCRIPTION = "Train a latent-diffusion model. Counts and periods are optimiser steps."

FIRST = ("data", "size", "vae", "max_steps", "batch_size")  # and --out

BAD_PICTURES = """\
noise or blots, and the loss still falls:  train on, with --resume --max-steps 20000
soft, however long it trains:              the autoencoder; what it can show at best is told by
                                           python -m tinyldm evaluate photos --vae tiny --size 64
good, but not what was asked for:          python sample.py --guidance 5; or train on
glaring, burnt colours:                    python sample.py --guidance 1.5
the loss jumps, or is not finite:          a lower --lr, a larger --batch-size
copies of the training images:             more images, fewer steps; the nearest are shown by
                                           python -m tinyldm picture neighbours
report.html in the run's folder has previews, the loss, and the loss by noise level."""

EXAMPLES = """examples:
  python train.py --cfg-drop 0.1                       toy monsters, everything shipped, offline
  python train.py --data photos                        a folder of images, or of cats/ and dogs/
  python train.py --data hw6                           the monster assignment, 256x256
  python train.py --data hw6 --vae tiny --text-encoder tiny --size 64    without any download
  python train.py --resume                             continue the latest run
  python train.py --lora 4 --from runs/toy-1 --data ghosts    adapt a run to other pictures
  python train.py --network my_module:build           a network of your own
  torchrun --nproc-per-node 8 train.py --data hw6 --batch-size 512      eight GPUs
With --vae tiny and pictures of up to 128 pixels, the network is that of the toy monsters, trained
by AdamW for 6000 steps at a learning rate of 1e-3. So it is for small landscapes, with 2000 steps,
and for labels, with 15600 steps at 1.5e-3, even loss weights, stratified t, a shift of 0.25 and a
linear decay. Classes and images without captions are trained so by default.
"""


def train_parser() -> Parser:
    """The parser of train.py. An option that is not given is absent from what it returns."""
    parser = Parser(prog=called("train.py"), description=DESCRIPTION)
    add_train_options(parser)
    return parser


def add_train_options(parser: Parser) -> None:
    """Add the options of a training to a parser, which keeps those alone that are given."""
    parser.end_with(EXAMPLES)
    parser.keep_only_given()
    parser.shorten_usage()
    first = "the six that matter"
    add_options(parser, TrainSettings, only=FIRST, heading=first)
    parser.add_argument_group("when the pictures are bad", BAD_PICTURES)
    # argparse has no public name for its groups; that of --help comes after the six
    parser._action_groups.append(parser._action_groups.pop(1))
    rest = [f.name for f in fields(TrainSettings) if f.name not in FIRST]
    add_options(parser, TrainSettings, only=rest)
    groups = {group.title: group for group in parser._action_groups}
    groups["training"].add_argument(
        "--epochs",
        type=whole(1, 10**6),
        metavar="N",
        help="length of the training in passes over the data, instead of --max-steps",
    )
    run = groups["run"]
    groups[first].add_argument(
        "--out", metavar="NAME", help="run folder (default: runs/NAME-N, the next free number)"
    )
    run.add_argument(
        "--resume", action="store_true", help="continue the run at --out, or else the latest one"
    )
    groups["adapting a run (--from RUN)"].add_argument(
        "--from", dest="start", metavar="RUN", help="the run to adapt, or one of its checkpoints"
    )
    run.add_argument("--overwrite", action="store_true", help="replace the run at --out")


def parse_options(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The options that were given, by name."""
    return vars(train_parser().parse_args(arguments))
