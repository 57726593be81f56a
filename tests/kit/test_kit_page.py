"""docs/kit.md: what the grader says there is what it says, and its table counts our own lines."""

import importlib.util
import re
from pathlib import Path

import pytest

from tinyldm.kit.exercises import EXERCISES
from tinyldm.kit.writing import blanked

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "kit.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_sample_is_what_the_grader_says():
    spec = importlib.util.spec_from_file_location("kit_sample", ROOT / "docs" / "kit_sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.sample() in PAGE


def code(text):
    """The lines of a module that are neither empty nor comments."""
    return [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def test_the_table_lists_every_exercise_with_its_lines():
    rows = dict(re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|$", PAGE, re.MULTILINE))
    counted = {}
    for exercise in EXERCISES:
        text = (ROOT / "tinyldm" / exercise.module).read_text(encoding="utf-8")
        raised = len(exercise.functions)  # a blank is one line
        made = blanked(text, exercise)
        counted[exercise.name] = str(len(code(text)) - len(code(made)) + raised)
    assert rows == counted
