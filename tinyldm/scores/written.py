"""Scores to read: a table, and a file that names what made them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tinyldm
from tinyldm.files import write_text
from tinyldm.typed import sealed

# packages that a score may depend on
MEASURED = ("torch", "torchvision", "transformers", "pillow", "numpy")


def table(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The scores as lines of text: for each metric one with its value and facts, then its rows."""
    lines = []
    for metric, values in scores.items():
        rows = {name: value for name, value in values.items() if isinstance(value, dict)}
        left_out = {*rows, "value", "preprocessing"}
        facts = [f"{name} {value}" for name, value in values.items() if name not in left_out]
        lines.append(f"{metric:<14} {values['value']:>9.4f}  ({', '.join(facts)})")
        if rows:
            lines += _rows(rows)
    return lines


def _rows(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The names of the columns, and a line for each row."""
    columns = list(next(iter(rows.values())))
    width = max(len(name) for name in rows)
    lines = [" " * (width + 2) + "".join(f"{column:>10}" for column in columns)]
    for name, row in rows.items():
        lines.append(f"  {name:<{width}}" + "".join(f"{row[column]:>10.3f}" for column in columns))
    return lines


def write_scores(out: Path, scores: Mapping[str, Any], **about: Any) -> None:
    """Write scores as JSON, with the versions of what made them.

    about: what was scored. A number that is not finite, such as the PSNR of equal pictures, is
    written as null, since JSON has no infinity.
    """
    versions = {"tinyldm": tinyldm.__version__, "python": platform.python_version()}
    for name in MEASURED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    text = json.dumps({**about, "scores": scores, "versions": versions})
    report = json.loads(text, parse_constant=lambda _: None)  # NaN, Infinity, -Infinity
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(sealed(report), indent=1, ensure_ascii=False))
