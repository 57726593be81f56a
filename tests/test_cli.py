"""How commands end when it is neither success nor a wrong option."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import guarded
from tinyldm.device import pick_device
from tinyldm.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: "
            "you tried to ..."
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines"),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    def job():
        raise error

    assert guarded(job) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory")
    assert "--batch-size" in line


def test_a_bug_keeps_its_traceback():
    def job():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        guarded(job)


def run(place, command, *arguments):
    """A command of the repository, run in `place`, whose modules hide those that are installed."""
    environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}
    if command[0].endswith(".py"):
        command = [str(ROOT / command[0])]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment,
    )


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["train.py"], ["--out", "run"]),
        (["sample.py"], ["--run", "run"]),
        (["-m", "tinyldm", "encode"], ["--data", "data"]),
    ],
    ids=["train", "sample", "encode"],
)
def test_ctrl_c_while_torch_is_imported(command, arguments, tmp_path):
    """The import of torch takes seconds; whoever stops there sees no traceback."""
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    done = run(tmp_path, command, *arguments)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "interrupted"


HEAVY = ("torch", "transformers", "PIL", "numpy", "diffusers", "matplotlib", "safetensors")


@pytest.mark.parametrize(
    "command",
    [["train.py"], ["sample.py"], ["-m", "tinyldm"]]
    + [["-m", "tinyldm", name] for name in COMMANDS],
    ids=lambda command: command[-1],
)
def test_help_imports_nothing_heavy(command, tmp_path):
    """--help answers at once: whatever takes long to import raises here."""
    for name in HEAVY:
        (tmp_path / f"{name}.py").write_text(f"raise AssertionError('{name} was imported')")
    done = run(tmp_path, command, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["meta", "warp", "xla", "cuda:99"])
def test_a_device_that_cannot_compute_here(name):
    with pytest.raises(InputError, match=f"--device {name}: not usable here") as caught:
        pick_device(name)
    assert len(str(caught.value)) < 250
