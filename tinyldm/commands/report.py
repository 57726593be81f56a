"""commands.report."""

from __future__ import annotations

from pathlib import Path

from tinyldm.pages.report import (
    write_report,
)


def add_arguments(parser):
    """The options of python -m tinyldm report."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run folder; its report.html is made anew"
    )


def run(options):
    """Write the report of a run."""
    print(write_report(options.run))
