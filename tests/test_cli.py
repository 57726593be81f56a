"""How commands end when it is neither success nor a wrong option."""

import argparse
import io
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from bad_inputs import parser_of

import sample
from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Bounds, Parser, dispatch, guarded, real, whole
from tinyldm.device import pick_device
from tinyldm.errors import InputError, printable, reason, say
from tinyldm.processes import joined
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


def test_help_breaks_no_address_and_no_option(monkeypatch):
    """On a narrow terminal, and where pages are named by their address, as in a wheel."""
    monkeypatch.setenv("COLUMNS", "40")
    page = "https://github.com/tinyldm/tinyldm/blob/main/docs/data.md"
    parser = Parser(prog="p")
    parser.add_argument("--size", help=f"pixels ({page} tells the defaults), with --text-encoder")
    told = parser.format_help().split()
    assert f"({page}" in told
    assert "--text-encoder" in told


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("pictures with captions (--task text)", ["--text-encoder"]),
        ("labels and classes (--task labels, --task classes)", ["--label-form"]),
        ("landscapes (--task landscape)", ["--image-encoder", "--style-drop"]),
        ("super-resolution (--task super-resolution)", ["--factor"]),
        (
            "adapting a run (--from RUN)",
            ["--lora", "--lora-alpha", "--lora-layers", "--controlnet", "--from"],
        ),
    ],
)
def test_options_of_one_task_are_shown_under_it(heading, options):
    (section,) = re.findall(
        rf"^{re.escape(heading)}:\n((?:  .*\n)+)", train_parser().format_help(), re.MULTILINE
    )
    assert re.findall(r"^  (--[a-z-]+)", section, re.MULTILINE) == options


@pytest.mark.parametrize("name", ["meta", "warp", "xla", "cuda:99", "hpu", "mkldnn", "cuda:-1"])
def test_a_device_that_cannot_compute_here(name):
    with pytest.raises(InputError, match=f"--device {name}: not usable here") as caught:
        pick_device(name)
    assert len(str(caught.value)) < 250


# ---- numbers


@pytest.mark.parametrize(
    ("bounds", "accepted", "refused"),
    [
        (whole(1, 8), ["1", "8", " 3 "], ["0", "9", "-1", "1.5", "1e1", "nan", "", "9" * 5000]),
        (real(0, 1), ["0", "1", "0.5", "1e-320"], ["-1e-320", "1.1", "nan", "inf", "-inf", "x"]),
        (real(0, 5, exclusive=True), ["5", "1e-300"], ["0", "-0.0", "1e308", "9" * 400]),
    ],
)
def test_what_bounds_take(bounds, accepted, refused):
    for text in accepted:
        assert bounds(text) == float(text)
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError, match=": expected a ") as caught:
            bounds(text)
        assert len(str(caught.value)) < 150


def test_bounds_take_no_value_of_another_type():
    assert True not in whole(0, 5)
    assert 1.0 not in whole(0, 5)
    assert "1" not in real(0, 5)
    assert None not in whole(0, 5)
    assert 1 in real(0, 5)


def every_parser(parser):
    """A parser and those of its parts."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from every_parser(part)


@pytest.mark.parametrize("command", ["train.py", "sample.py", *COMMANDS])
def test_every_number_has_bounds(command):
    """An option whose default is a number, or that takes one, is parsed by Bounds."""
    for parser in every_parser(parser_of(command)):
        for action in parser._actions:
            takes_number = action.type in (int, float) or isinstance(action.type, Bounds)
            has_number = isinstance(action.default, int | float) and action.nargs != 0
            if takes_number or has_number:
                assert isinstance(action.type, Bounds), action.option_strings
                assert action.type.maximum > action.type.minimum


# ---- lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "runs/\u602a\u7269 a\u3000b \u00a0\u20ac.png",
            "runs/\u602a\u7269 a\u3000b \u00a0\u20ac.png",
        ),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[2J\x1b]0;title\x07\x9b31m", "\\x1b[2J\\x1b]0;title\\x07\\x9b31m"),
        ("gnp.\u202eexe\u2028\u200b", "gnp.\\u202eexe\\u2028\\u200b"),
        ("bytes \udcff", "bytes \\udcff"),
    ],
)
def test_names_are_printed_on_one_line_and_change_no_terminal(text, shown, capsys):
    assert printable(text) == shown

    def job():
        say(text)
        raise InputError(text)

    assert guarded(job) == 2
    told = capsys.readouterr()
    assert told.out == f"{shown}\n"
    assert told.err == f"error: {shown}\n"


def test_a_name_that_the_terminal_has_no_signs_for():
    """As under LC_ALL=en_US.ISO-8859-1."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    say("caf\u00e9 \u602a", stream)
    stream.seek(0)
    assert stream.buffer.read() == b"caf\xe9 \\u602a\n"


def test_an_os_error_and_a_wrong_option_are_printed_the_same_way(capsys):
    def full():
        raise OSError(28, "No space left on device", "a\nb\x1b[31m")

    assert guarded(full) == 2
    assert capsys.readouterr().err == "error: a\\nb\\x1b[31m: No space left on device\n"
    assert guarded(train_parser().parse_args, ["--col\x1bour\n"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--col\\x1bour\\n" in line


def test_advice_to_run_code_is_not_repeated():
    torch_says = ValueError(
        "Weights only load failed.\nRe-running with `weights_only` set to `False`"
    )
    assert "weights_only" not in reason(torch_says)
    assert reason(ValueError("one\n  two")) == "one two"
    assert reason(EOFError()) == "EOFError"


# ---- several processes


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set: expected a whole number from 0 to 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE two: expected a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE 0: expected a whole number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is not set: expected"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE 999"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK 2: expected a whole number from 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "29511"}, "MASTER_ADDR"),
    ],
)
def test_processes_that_torchrun_did_not_start(variables, told, monkeypatch, capsys):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def job():
        with joined(pick_device("cpu")):
            pytest.fail("joined")

    assert guarded(job) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert len(line) < 300


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
def test_an_empty_text_is_a_value_of_no_option_but_a_prompt(text, capsys):
    free = ("--prompt", "--invert")  # what --init shows is a prompt, and may be unknown
    options = [(parser, flag) for parser, flag in options_with_values() if flag not in free]
    assert sample.parser().parse_args(["--prompt", text]).prompt == [text]
    assert sample.parser().parse_args(["--invert", text]).invert == text
    assert len(options) > 150
    for parser, flag in options:
        for arguments in ([flag, text], [f"{flag}={text}"]):
            assert guarded(parser.parse_args, arguments) == 2
            said = capsys.readouterr().err
            assert flag in said, said
            assert said.count("\n") == 1
            assert "empty" in said or "expected 2 arguments" in said, said


def test_an_empty_text_is_no_argument_of_a_command(capsys):
    for arguments in (["report", ""], ["evaluate", ""], ["vae", "train", "--data", ""], [""]):
        assert dispatch(COMMANDS, arguments) == 2
        assert "got an empty text" in capsys.readouterr().err
