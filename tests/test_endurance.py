"""docs/endurance.py in small: kills, interruptions, two processes of which one is lost, and two
machines."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_what_a_run_survives(tmp_path):
    """Few kills and short jobs; the page docs/training.md has the figures of many and long ones."""
    small = ["--count", "3", "--kill-steps", "3", "--steps", "9", "--pictures", "18"]
    small += ["--pair-steps", "4"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "endurance.py"), *small],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    what = [row.split("|")[1].strip() for row in rows[2:]]
    assert what == [
        "kill -9 of train.py",
        "kill -9 of sample.py",
        "kill -9 of vae train",
        "9 steps, 2 times interrupted",
        "18 pictures, 2 times interrupted",
        "two processes, one killed",
        "two processes, one killed",
        "drawn by two, one killed",
        "encoded by two, one killed",
        "two machines, a process each",
    ]
