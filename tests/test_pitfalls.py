"""docs/pitfalls.md has a row for each point, and each test that it promises is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/pitfalls.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)


def test_the_table_is_complete_and_its_tests_exist():
    points = [int(point) for point, _ in ROWS]
    assert points == list(range(1, len(ROWS) + 1))
    assert len(points) >= 48
    named = {
        (int(point), name)
        for point, row in ROWS
        for name in re.findall(r"`(test_\w+)`", row.split(" | ")[-1])
    }
    written = {
        (int(point), file.stem)
        for file in TESTS.rglob("test_*.py")
        for point in re.findall(
            r"^def test_pitfall_(\d\d)_", file.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert named == written
    assert {point for point, _ in named} == set(points)
