"""How commands end when it is neither success nor a wrong option."""

import subprocess
import sys
from pathlib import Path

import pytest

from tinyldm.cli import guarded
from tinyldm.device import pick_device
from tinyldm.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to ..."
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


@pytest.mark.parametrize("script", ["train.py", "sample.py", "-m tinyldm encode"])
def test_ctrl_c_while_torch_is_imported(script, tmp_path):
    """The import of torch takes seconds; whoever stops there sees no traceback."""
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    path = [
        "-c",
        f"import sys, runpy; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; sys.argv = ['x', '--help']; ",
    ]
    module = script.startswith("-m")
    path[1] += (
        "sys.argv[1:1] = ['encode']; runpy.run_module('tinyldm', run_name='__main__')"
        if module
        else (f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')")
    )
    done = subprocess.run([sys.executable, *path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted"


@pytest.mark.parametrize("name", ["meta", "warp", "xla", "cuda:99"])
def test_a_device_that_cannot_compute_here(name):
    with pytest.raises(InputError, match=f"--device {name}: not usable here") as caught:
        pick_device(name)
    assert len(str(caught.value)) < 250
