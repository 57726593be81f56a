"""Folders that are locked while they are written, and never emptied of what others put there."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from tinyldm.data.cache import build_once
from tinyldm.errors import InputError
from tinyldm.files import write_text
from tinyldm.folders import (
    MARKER,
    Kind,
    check_free,
    locked,
    mark,
    numbered,
    owned,
    owned_file,
    remove_written,
    whole_folder,
)

HOLD = """
import sys, time
from pathlib import Path
from tinyldm.folders import locked

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
    refused = pytest.raises(InputError, match=r"run\.lock: is a symbolic link")
    with refused, locked(tmp_path / "run.lock"):
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


SET = Kind("set", r"(train/)?[a-z]+\.txt", folders=("train",))


def write_set(folder, *names, overwrite=False):
    with whole_folder(folder, SET, overwrite) as draft:
        for name in names:
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_text(name)


def files_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "set"

    def interrupted():
        with whole_folder(folder, SET) as draft:
            (draft / "half.txt").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []
    for names in (["one.txt", "train/a.txt"], ["train/b.txt"]):
        write_set(folder, *names, overwrite=True)
        assert files_in(folder) == [MARKER, *names]
    with pytest.raises(InputError, match="set: exists already"):
        write_set(folder, "three.txt")
    assert files_in(folder) == [MARKER, "train/b.txt"]
    assert os.listdir(tmp_path) == ["set"]
    before = os.umask(0o002)
    try:
        write_set(tmp_path / "shared", "one.txt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o775


@pytest.mark.parametrize("foreign", ["thesis.pdf", "train/mine.png", "link"])
def test_a_folder_that_holds_more_is_not_replaced(tmp_path, foreign):
    folder = tmp_path / "set"
    write_set(folder, "one.txt", "train/a.txt")
    if foreign == "link":
        (folder / "link").symlink_to(tmp_path)
    else:
        (folder / foreign).write_text("mine")
    with pytest.raises(InputError, match=f"{foreign}: was not written by this command"):
        write_set(folder, "two.txt", overwrite=True)
    assert {"one.txt", "train/a.txt"} <= set(files_in(folder))
    assert (folder / foreign).exists()


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    """It holds only files with names that we use as well, but nothing says that we wrote them."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="set: exists already"):
        write_set(folder, "two.txt", overwrite=True)
    with pytest.raises(InputError, match="notes.txt there was not written by this command"):
        check_free(folder, SET, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


# ---- owning a folder


def test_an_owned_folder_is_locked_and_marked(tmp_path):
    folder = tmp_path / "deep" / "set"
    with owned(folder, SET, "--out"):
        with (
            pytest.raises(InputError, match=f"^--out {folder}: another process is training there$"),
            owned(folder, SET, "--out"),
        ):
            pytest.fail("the block ran")
        (folder / "a.txt").write_text("a")
    assert SET.holds(folder)
    assert not Kind("other", "").holds(folder)
    with owned(folder, SET):
        pass


@pytest.mark.parametrize("lock", [".lock", "about/.lock"])
def test_a_failure_before_anything_is_written_leaves_no_folder(tmp_path, lock):
    kind = Kind("set", r".*\.txt", folders=("about",), lock=lock)

    def fails(folder):
        with owned(folder, kind):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fails(tmp_path / "deep" / "er" / "set")
    assert os.listdir(tmp_path) == []
    (tmp_path / "set").mkdir()
    with pytest.raises(RuntimeError, match="broken"):
        fails(tmp_path / "set")
    assert os.listdir(tmp_path / "set") == []  # it was there before
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(RuntimeError, match="broken"):
        fails(tmp_path / "set")
    assert (tmp_path / "set" / "mine.txt").exists()


def test_a_folder_inside_that_is_a_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_text("mine")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train").symlink_to(elsewhere)
    with pytest.raises(InputError, match="train: is a symbolic link"), owned(folder, SET):
        pytest.fail("the block ran")
    mark(folder, SET)
    remove_written(folder, SET)
    assert os.listdir(elsewhere) == ["a.txt"]
    assert (folder / "train").is_symlink()


def test_only_what_was_written_is_removed(tmp_path):
    folder = tmp_path / "set"
    for name in ("one.txt", "train/a.txt", "only/b.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name in ("one.pdf", "train/mine.png"):
        (folder / name).write_text("mine")
    (folder / "linked.txt").symlink_to("one.pdf")
    remove_written(folder, SET)
    assert files_in(folder) == ["linked.txt", "one.pdf", "only/b.txt", "train/mine.png"]


def test_a_file_is_owned_while_it_is_made(tmp_path):
    file = tmp_path / "scores.json"
    (tmp_path / ".tinyldm-01234567-scores.json").write_text("half")
    with owned_file(file):
        with pytest.raises(InputError, match="another process is writing it"), owned_file(file):
            pytest.fail("the block ran")
        write_text(file, "{}")
    assert os.listdir(tmp_path) == ["scores.json"]


def test_a_failure_leaves_none_of_the_folders_that_were_made_for_a_file(tmp_path):
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "deep" / "scores.json"
    with pytest.raises(RuntimeError, match="broken"), owned_file(file):
        raise RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"), whole_folder(file, SET):
        raise RuntimeError("broken")
    assert files_in(tmp_path) == []
    assert os.listdir(tmp_path) == ["mine"]  # it was there before
    assert os.listdir(tmp_path / "mine") == []


def test_steps_are_ordered_by_number(tmp_path):
    names = ["step-9999999", "step-10000000", "step-0000002"]
    for name in (*names, "step-best", "step-", "step-1.bak", "step-²", "xstep-1", "step-7.png"):
        (tmp_path / name).mkdir()
    found = [path.name for path in numbered(tmp_path)]
    assert found == ["step-0000002", "step-9999999", "step-10000000"]
    assert [path.name for path in numbered(tmp_path, ".png")] == ["step-7.png"]
    assert numbered(tmp_path / "nowhere") == []


def test_a_cache_has_the_modes_of_umask(tmp_path):
    """So that a cache in a shared folder can be shared."""

    def build(folder):
        (folder / "latents.f16").write_bytes(b"abcd")
        return {}

    before = os.umask(0o002)
    try:
        build_once(tmp_path / "cache" / "key", build)
    finally:
        os.umask(before)
    for path, mode in (("", 0o775), ("latents.f16", 0o664), ("cache.json", 0o664)):
        assert stat.S_IMODE((tmp_path / "cache" / "key" / path).stat().st_mode) == mode


def test_what_another_command_has_written_is_not_written_into(tmp_path):
    """vae train --out RUN --overwrite would make of a run something that no command knows."""
    other = Kind("other", r"other\.txt")
    folder = tmp_path / "set"
    write_set(folder, "one.txt")
    with pytest.raises(InputError, match=r"written by another command \(holds: set\)"):
        check_free(folder, other, overwrite=True)
    old_run = tmp_path / "run"  # which has no marker
    (old_run / "checkpoints" / "step-0000001").mkdir(parents=True)
    with pytest.raises(InputError, match=r"written by another command \(holds: run\)"):
        check_free(old_run, other, overwrite=True)
    samples = tmp_path / "samples"
    (samples / "about").mkdir(parents=True)
    (samples / "about" / "samples.json").write_text("{}")
    with pytest.raises(InputError, match=r"written by another command \(holds: samples\)"):
        check_free(samples, other, overwrite=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    check_free(tmp_path / "notes", other, overwrite=True)
