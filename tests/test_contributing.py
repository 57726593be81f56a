"""The recipes of CONTRIBUTING.md: each is short, and its own test passes."""

import os
import re
from pathlib import Path

import fresh
import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"### A (\w+)\n\n```python\n(.*?)```\n\n```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_is_one_for_each_kind_of_part_and_none_is_long():
    assert [name for name, *_ in RECIPES] == [
        "solver",
        "schedule",
        "condition",
        "dataset",
        "network",
    ]
    for _, code, test in RECIPES:
        assert len((code + test).splitlines()) < 60


@pytest.mark.slow
def test_the_recipes_pass_their_own_tests(tmp_path):
    for _, *parts in RECIPES:
        for part in parts:
            name = re.match(r"# (\w+\.py)", part)[1]
            (tmp_path / name).write_text(part, encoding="utf-8")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    places = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = fresh.run(words, tmp_path, {**os.environ, **places})
    assert done.returncode == 0, done.stdout
    assert f"{len(RECIPES)} passed" in done.stdout
