"""Scores to read: a table, and a file that names what made them."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tinyldm
from tinyldm.files import replacing

MEASURED = (
    "torch",
    "torchvision",
    "transformers",
    "pillow",
    "numpy",
)  # packages that a score may depend on


def table(scores: dict) -> str:
    """The scores of each metric as text: its number and facts in a line, then a column for each value, a row a set."""
    lines = []
    for metric, values in scores.items():
        rows = {name: value for name, value in values.items() if isinstance(value, dict)}
        facts = ", ".join(
            f"{k} {v}" for k, v in values.items() if k not in (*rows, "value", "preprocessing")
        )
        lines.append(f"{metric:<14} {values['value']:>9.4f}  ({facts})")
        if rows:
            columns, wide = list(next(iter(rows.values()))), max(map(len, rows))
            lines.append(" " * (wide + 2) + "".join(f"{c:>10}" for c in columns))
            lines += [
                f"  {name:<{wide}}" + "".join(f"{row[c]:>10.3f}" for c in columns)
                for name, row in rows.items()
            ]
    return "\n".join(lines)


def write_scores(out: Path, scores: dict, **about):
    """Write scores as JSON, null for what is not finite, with the versions of what made them; about: what is scored."""
    versions = {"tinyldm": tinyldm.__version__, "python": platform.python_version()}
    for name in MEASURED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        report = json.dumps({**about, "scores": scores, "versions": versions})
        finite = json.loads(
            report, parse_constant=lambda number: None
        )  # JSON has no infinity, the PSNR of equal pictures
        temporary.write_text(json.dumps(finite, indent=1, ensure_ascii=False), encoding="utf-8")
