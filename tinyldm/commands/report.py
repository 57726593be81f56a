"""python -m tinyldm report: write report.html of a run anew."""

from __future__ import annotations

from pathlib import Path


def add_arguments(parser):
    """The options of python -m tinyldm report."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run folder; its report.html is written anew"
    )


def run(options):
    """Write the report and print where it is."""
    from tinyldm.pages.report import write_report

    print(write_report(options.run))
