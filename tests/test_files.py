"""Locks between processes, and files that are whole or absent."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from tinyldm.errors import InputError
from tinyldm.files import locked, replacing, whole_folder

HOLD = """
import sys, time
from pathlib import Path
from tinyldm.files import locked

with locked(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock tmp_path/run.lock, until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_is_free_again_after_the_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "run.lock", busy="never") as held:
            assert held
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), locked(tmp_path / "run.lock", busy="never"):
            raise error
    with locked(tmp_path / "run.lock", busy="never") as held:
        assert held


def test_a_busy_lock_is_told_in_the_words_given(tmp_path, holder):
    with (
        pytest.raises(InputError, match="^somebody trains there$"),
        locked(tmp_path / "run.lock", busy="somebody trains there"),
    ):
        pytest.fail("the block ran")


def test_without_such_words_it_is_waited_for(tmp_path, holder, capsys):
    """Until the other process dies, whatever kills it."""
    entered = threading.Event()

    def enter():
        with locked(tmp_path / "run.lock"):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.5)
    os.kill(holder.pid, signal.SIGKILL)
    assert entered.wait(60)
    waiting.join()
    assert capsys.readouterr().err == f"waiting for another run that builds {tmp_path / 'run'}\n"


def test_two_locks_are_nothing_to_each_other(tmp_path, holder):
    with locked(tmp_path / "another.lock", busy="busy") as held:
        assert held


def test_what_a_lock_that_is_a_symbolic_link_points_to_stays_as_it_was(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("years of work")
    (tmp_path / "run.lock").symlink_to(precious)
    with pytest.raises(OSError, match=r"run\.lock"), locked(tmp_path / "run.lock"):
        pytest.fail("the block ran")
    assert precious.read_text() == "years of work"
    assert (tmp_path / "run.lock").is_symlink()


def test_what_is_in_a_lock_file_already_is_left_there(tmp_path):
    (tmp_path / "run.lock").write_text("notes")
    with locked(tmp_path / "run.lock") as held:
        assert held
    assert (tmp_path / "run.lock").read_text() == "notes"


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as caught, locked(tmp_path / "file" / "run.lock"):
        pytest.fail("the block ran")
    assert caught.value.filename.startswith(str(tmp_path / "file"))


@pytest.mark.parametrize("number", [95, 37, 5])  # not supported, no locks available, input/output
def test_where_there_are_no_locks_the_block_runs_without(tmp_path, monkeypatch, number):
    def refuse(*arguments):
        raise OSError(number, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "run.lock", busy="busy") as held:
        assert not held


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("one")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "set"

    def interrupted():
        with whole_folder(folder) as draft:
            (draft / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []
    for content in ("one", "two"):
        with whole_folder(folder, replace=True) as draft:
            assert os.listdir(draft) == []
            (draft / content).write_text(content)
        assert os.listdir(folder) == [content]
    with pytest.raises(OSError, match="set"), whole_folder(folder) as draft:
        (draft / "three").write_text("three")
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["set"]


def test_a_file_system_with_other_locks_is_not_warned_about(tmp_path, monkeypatch, recwarn):
    """Where flock is missing, filelock takes another kind of lock, and says so."""

    def missing(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    for _ in range(2):
        with locked(tmp_path / "run.lock", busy="busy"):
            pass
    assert not recwarn.list


def full_disk(path):
    """What a write to a full disk raises."""
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path):
    """And not the temporary one beside it, which is gone when somebody looks."""
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "a.png") as aside:
        full_disk(aside)
    assert caught.value.filename == str(tmp_path / "a.png")
    with pytest.raises(OSError, match="No space") as caught, whole_folder(tmp_path / "s") as draft:
        full_disk(draft / "train" / "1.png")
    assert caught.value.filename == str(tmp_path / "s" / "train" / "1.png")
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "a.png"):
        full_disk(tmp_path / "another")
    assert caught.value.filename == str(tmp_path / "another")
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(OSError, match="director") as caught,
        replacing(tmp_path / "folder") as aside,
    ):
        aside.write_text("a file cannot take the place of a folder")
    assert caught.value.filename == str(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
