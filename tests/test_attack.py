"""docs/attack in small: a few mutants of every kind of file, and a few random command lines."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]


def load(name):
    """A module of docs/attack."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "attack" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations = load("mutations")


@pytest.mark.slow
def test_nothing_that_is_damaged_does_harm(tmp_path):
    """Each mutant is refused in one line that names its file, or leaves the right result."""
    few = ["--out", str(tmp_path / "attacked"), "--count", "6", "--lines", "15", "--seed", "1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "attack"), *few],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) > 40
    refused = sum(int(row[2]) for row in rows[2:])
    assert refused > sum(int(row[1]) for row in rows[2:]) / 4  # it does do damage


@given(
    st.binary(max_size=300),
    st.sampled_from([".bin", ".png", ".npy"]),
    st.integers(0, 10_000),
)
def test_a_mutant_is_another_file_and_the_same_one_for_the_same_number(content, suffix, number):
    first, what = mutations.mutant(content, suffix, Random(number))
    assert (first, what) == mutations.mutant(content, suffix, Random(number))
    assert first != content


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), VALUES, min_size=1, max_size=4), st.integers(0, 10_000))
def test_json_is_damaged_whatever_is_in_it(tree, number):
    content = mutations.written(tree)
    damaged, what = mutations.mutant(content, ".json", Random(number))
    assert damaged != content
    assert what


def test_a_table_goes_between_the_marks_of_its_name(tmp_path):
    spec = importlib.util.spec_from_file_location("written", ROOT / "docs" / "written.py")
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n<!-- y -->\n<!-- end of y -->\n")
    written.put(page, "x", "new\n")
    written.put(page, "y", "| 1 |\n")
    lines = ["a", "<!-- x -->", "new", "<!-- end of x -->"]
    assert page.read_text().splitlines() == [
        *lines,
        *("b", "<!-- y -->", "| 1 |", "<!-- end of y -->"),
    ]
    with pytest.raises(ValueError, match="no marks of z"):
        written.put(page, "z", "")


def test_the_pages_have_the_marks_that_the_scripts_write_between():
    for page, name in (("security", "attack"), ("training", "endurance")):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        assert text.count(start) == text.count(end) == 1
        assert text.index(start) < text.index(end)
