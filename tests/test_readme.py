"""The README keeps what it promises: its example runs, its commands parse."""

import re
import subprocess
import sys
from pathlib import Path

import fresh
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_trains_and_samples(tmp_path):
    """The script of the README, as printed.

    Its pictures end within a tenth of the data's range of 2.
    """
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = fresh.run(["-c", code], tmp_path, environment, strict=True)
    assert done.returncode == 0, done.stderr
    error = float(re.search(r"[\d.]+", done.stdout)[0])
    assert error < 0.2  # a picture that missed its corner would be off by 1


def test_every_install_command_is_constrained():
    installs = re.findall(r"pip install [^\n`]*", README)
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


@pytest.mark.parametrize(
    "script",
    [
        "train.py",
        "sample.py",
        "-m tinyldm",
        "-m tinyldm toy",
        "-m tinyldm encode",
        "-m tinyldm evaluate",
        "-m tinyldm convert",
        "-m tinyldm sweep",
        "-m tinyldm submit",
        "-m tinyldm picture",
        "-m tinyldm report",
    ],
)
def test_help_teaches(script):
    done = subprocess.run(
        [sys.executable, *script.split(), "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert done.stderr == ""


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in link]
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []
