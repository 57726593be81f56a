"""python -m tinyldm report: rewrite report.html of a run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tinyldm.cli import Parser
from tinyldm.errors import say


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm report."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="the run folder; its report.html is rewritten"
    )


def run(options: Namespace) -> None:
    """Write the report and print where it is."""
    from tinyldm.pages.report import write_report

    say(write_report(options.run))
