"""Signals: exit statuses, what is said, a second signal, and processes whose parent is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import guarded
from tinyldm.errors import InputError

ROOT = Path(__file__).parents[1]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

START = """
import os, signal, sys, time
from tinyldm.cli import guarded
from tinyldm.errors import InputError
from tinyldm.signals import leave, stop_on_signal

def sleep():
    print("ready", flush=True)
    time.sleep(60)
"""
JOBS = {
    "sleeps": """
def job():
    sleep()
""",
    "cleans up": """
def job():
    try:
        sleep()
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
""",
    "saves": """
def job():
    with stop_on_signal():
        sleep()
        print("saving", flush=True)
        time.sleep(60)
""",
    "swallows it": """
def job():
    try:
        sleep()
    except BaseException:
        pass
    time.sleep(60)
""",
    "is done": """
def job():
    try:
        sleep()
    except BaseException:
        pass
""",
    "bad input": """
def job():
    print("ready", flush=True)
    raise InputError("nothing there")
""",
    "misunderstands": """
def job():
    try:
        sleep()
    except KeyboardInterrupt:
        raise RuntimeError("initialization of _C raised unreported exception")
""",
}


def start(job, *, before="", **environment):
    """A process that runs a job under guarded(), once the job is ready."""
    script = f"{START}{JOBS[job]}\n{before}\nleave(guarded(job))"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


@pytest.mark.parametrize("job", ["sleeps", "misunderstands", "swallows it", "is done"])
@pytest.mark.parametrize("number", STATUS)
def test_a_signal_ends_a_command_with_its_status(job, number):
    process = start(job)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == STATUS[number]
    assert error == "interrupted\n"


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize(("job", "word"), [("cleans up", "cleaning\n"), ("saves", None)])
def test_a_second_signal_ends_it_at_once(job, word, number):
    process = start(job)
    process.send_signal(number)
    if word is None:
        process.stderr.readline()
        assert process.stderr.readline().startswith("stopping: the checkpoint is saved first")
    else:
        assert process.stdout.readline() == word
    then = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert error == ""
    assert time.monotonic() - then < 20


def test_a_signal_after_the_end_changes_nothing():
    """While Python takes itself down, which takes a while with torch."""
    before = (
        "import atexit; atexit.register(lambda: (print('leaving', flush=True), time.sleep(60)))"
    )
    process = start("bad input", before=before)
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert error == "error: nothing there\n"


def test_a_hangup_that_is_ignored_stays_so():
    """As nohup asks."""
    process = start("sleeps", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_handlers_are_as_before_once_a_command_has_ended():
    before = [signal.getsignal(number) for number in STATUS]
    assert guarded(lambda: None) == 0
    assert [signal.getsignal(number) for number in STATUS] == before


ARGUMENTS = {
    "train.py": ["--out", "run"],
    "sample.py": ["--run", "run"],
    "toy": ["vae", "--out", "out"],
    "encode": ["--data", "data"],
    "evaluator": ["train", "--data", "data", "--out", "out"],
    "landscapes": ["--out", "out"],
    "vae": ["train", "--data", "data", "--out", "out"],
    "convert": ["run", "--out", "out"],
    "sweep": ["--run", "run"],
    "submit": ["run", "--prompts", "test.json"],
    "picture": ["previews", "run", "--out", "out.png"],
    "report": ["run"],
    "evaluate": ["run", "--vae", "tiny"],
    "grid": ["run"],
    "merge": ["run", "--out", "out"],
    "play": ["run"],
}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_heeds_signals(command, tmp_path):
    """While it imports torch or numpy, which takes seconds."""
    for heavy in ("torch", "numpy"):
        (tmp_path / f"{heavy}.py").write_text(
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)"
        )
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    script = [str(ROOT / command)] if command.endswith(".py") else ["-m", "tinyldm", command]
    done = subprocess.run(
        [sys.executable, *script, *ARGUMENTS[command]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 143, done.stderr
    assert done.stderr == "interrupted\n"


def test_the_table_has_every_command():
    at_once = {"exercise"}  # imports nothing that takes long
    assert ARGUMENTS.keys() - {"train.py", "sample.py"} == COMMANDS.keys() - at_once


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyldm", "landscapes", "--out", "set", "--train", "100000"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in error
    assert error.endswith("interrupted\n")
    assert list(tmp_path.iterdir()) == []


# ---- processes of torchrun


@pytest.mark.parametrize("job", ["sleeps", "cleans up"])
def test_no_process_outlives_the_one_that_started_it(job, tmp_path):
    """Not even where the one that started it is killed, and its own clean-up never ends."""
    before = "import tinyldm.signals; tinyldm.signals.PATIENCE = 1"
    script = f"{START}{JOBS[job]}\n{before}\nsys.exit(guarded(job))"
    (tmp_path / "job.py").write_text(script)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, 'job.py'])\n"
            "print(child.pid, flush=True)\n"
            "child.wait()",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": "none"},
    )
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(child)
    parent.stdout.close()


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # one that nobody waits for is a zombie
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_the_report_of_torchrun_repeats_the_line(tmp_path, monkeypatch, capsys):
    """Read as torchrun reads it; and only the first process prints the line itself."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def job():
        raise InputError("--batch-size 3: expected a multiple of 2")

    failures = {}
    for rank in (0, 1):
        report = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
        monkeypatch.setenv("RANK", str(rank))
        assert guarded(job) == 2
        failures[rank] = ProcessFailure(rank, 100 + rank, 2, str(report))
    line = "error: --batch-size 3: expected a multiple of 2"
    assert capsys.readouterr().err == f"{line}\n"
    assert str(ChildFailedError("train.py", failures)).splitlines()[-2].endswith(line)
