"""tinyldm sample: the same job as python sample.py, wherever the package lies."""

from __future__ import annotations

import argparse

from tinyldm.cli import Parser
from tinyldm.installation import story
from tinyldm.sampling.settings import SampleOptions


def add_arguments(parser: Parser) -> None:
    """The options of sample.py."""
    story("sample").add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Draw, as sample.py does."""
    given = vars(options)
    del given["command"]
    story("sample").draw(SampleOptions(**given))
