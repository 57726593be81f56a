"""tinyldm train: the same job as python train.py, wherever the package lies."""

from __future__ import annotations

import argparse

from tinyldm.cli import Parser
from tinyldm.installation import story
from tinyldm.training.options import add_train_options


def add_arguments(parser: Parser) -> None:
    """The options of train.py."""
    add_train_options(parser)


def run(options: argparse.Namespace) -> None:
    """Train, as train.py does."""
    given = vars(options)
    del given["command"]
    story("train").train(given)
