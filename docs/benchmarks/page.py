"""Put the tables of docs/benchmarks/results into docs/benchmarks.md: python docs/benchmarks/page.py

A table stands between the marks of its name. Beside it: the machine, and how busy that was.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "benchmarks.md"
WITHOUT_CLOCK = {"counts", "memory", "error_by_calls"}  # the same however busy the machine is
BUSY = 0.6  # by core: of a machine that is busier than this, with something else, a line says so


def told(result: dict) -> str:
    """On what a result was measured."""
    before, after = result["machine"], result["machine after"]
    where = before["gpu"] or f"{before['processor']}, {before['threads']} threads"
    loads = [before["load"][0], after["load"][0]]
    line = (
        f"Measured on {where}, torch {before['torch']}; load {loads[0]} before and {loads[1]} after"
    )
    if max(loads) > before["cores"] * (1 + BUSY):
        line += (
            f", so **{before['cores']} cores were busy with other work**: the seconds say little"
        )
    return line + "."


def filled(text: str, results: dict[str, dict]) -> str:
    """The page with the tables of the results; a mark without a result says that there is none."""

    def put(found: re.Match) -> str:
        name = found[1]
        content = "Not measured yet.\n"
        if name in results:
            about = "" if name in WITHOUT_CLOCK else f"\n{told(results[name])}\n"
            content = f"{results[name]['table']}{about}"
        return f"<!-- {name} -->\n{content}<!-- end of {name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->", put, text, flags=re.DOTALL)


def main() -> None:
    results = {}
    for file in sorted((HERE / "results").glob("*.json")):
        results[file.stem] = json.loads(file.read_text())
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
