"""How commands end when it is neither success nor a wrong option."""

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sample
from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Parser, dispatch, guarded
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.training.options import train_parser

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


# ---- an empty text is never "not given"


def options_with_values():
    """(parser, flag) for each option of each command that takes a value."""
    parsers = [train_parser(), sample.parser()]
    for name in COMMANDS:
        parser = Parser()
        import_module(f"tinyldm.commands.{name}").add_arguments(parser)
        parsers.append(parser)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return [(parser, flag) for parser in parsers for flag in flags_of(parser)]


def flags_of(parser):
    return [a.option_strings[0] for a in parser._actions if a.option_strings and a.nargs != 0]


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_no_value_of_any_option(text, capsys):
    options = options_with_values()
    assert len(options) > 150
    for parser, flag in options:
        for arguments in ([flag, text], [f"{flag}={text}"]):
            with pytest.raises(SystemExit) as caught:
                parser.parse_args(arguments)
            assert caught.value.code == 2
            said = capsys.readouterr().err
            assert flag in said, said
            assert said.count("\n") == 1
            assert "empty" in said or "expected 2 arguments" in said, said


def test_an_empty_text_is_no_argument_of_a_command(capsys):
    for arguments in (["report", ""], ["evaluate", ""], ["vae", "train", "--data", ""], [""]):
        with pytest.raises(SystemExit) as caught:
            dispatch(COMMANDS, arguments)
        assert caught.value.code == 2
        assert "got an empty text" in capsys.readouterr().err
