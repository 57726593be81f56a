"""The code on docs/diffusion.md and on docs/guidance_and_averages.md is the code in the source."""

import re
from pathlib import Path
from textwrap import dedent, indent

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs/diffusion.md").read_text(), re.DOTALL
)

MORE = re.findall(
    r"```python\n# (\S+)\n(.*?)```",
    (ROOT / "docs/guidance_and_averages.md").read_text(),
    re.DOTALL,
)


@pytest.mark.parametrize(("path", "block"), BLOCKS + MORE, ids=[path for path, _ in BLOCKS + MORE])
def test_the_page_shows_the_source(path, block):
    source = (ROOT / path).read_text()
    assert any(indent(dedent(block), " " * n) in source for n in (0, 4, 8, 12, 16)), block


def test_every_part_has_its_lines():
    named = {Path(path).name for path, _ in BLOCKS if path.startswith("tinyldm/diffusion/")}
    assert named == {p.name for p in (ROOT / "tinyldm/diffusion").glob("*.py")} - {"__init__.py"}
