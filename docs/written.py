"""How figures are written and kept: a mean and its deviation, and a table's place in a page."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parents[1]


def put(page: Path, name: str, content: str) -> None:
    """Replace what stands between the marks of a name in a page; content ends with a newline."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    if not re.search(f"{start}.*{end}", text, re.DOTALL):
        raise ValueError(f"{page}: has no marks of {name}")
    before, _, rest = text.partition(start)
    page.write_text(f"{before}{start}{content}{end}{rest.partition(end)[2]}", encoding="utf-8")


def measured(command: str) -> str:
    """By which command, of which commit, on what: a line for below a table."""
    return f"`{command}` at commit {commit()}, on an {processor()} with {os.cpu_count()} cores.\n"


def commit() -> str:
    """The commit that is checked out, and whether code has changed since."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "*.py"], capture_output=True, text=True
    )
    return found.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def spread(values: Sequence[float]) -> str:
    """The mean of what was measured with each seed and, if there are several, the deviation."""
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{deviation}"


def share(cell: str) -> str:
    """What spread() wrote, as pages show a share: '0.958 ± 0.036' -> '.96 ± .04'."""
    return rounded(cell, 2).replace("0.", ".")


def rounded(cell: str, digits: int) -> str:
    """The numbers of a cell with so many digits behind the point; a half is rounded up."""
    last = Decimal(10) ** -digits
    numbers = [Decimal(number).quantize(last, ROUND_HALF_UP) for number in cell.split(" ± ")]
    return " ± ".join(map(str, numbers))


def kept(file: Path) -> list[dict]:
    """The rows of a file of results; none where it is not there yet."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def keep(file: Path, cells: dict[str, str], **key: str) -> None:
    """Write the cells of a row into a file, in place of those that it had under this key."""
    rows = [row for row in kept(file) if {name: row[name] for name in key} != key]
    rows.append({**key, "cells": cells})
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
