"""Folders that are built once and then shared: whole or absent, whatever interrupts or competes with the building."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Callable

from tinyldm.errors import InputError

HEADER = "cache.json"


def cache_folder() -> Path:
    """Where caches live: the environment's TINYLDM_CACHE, or else ~/.cache/tinyldm."""
    return Path(os.environ.get("TINYLDM_CACHE") or "~/.cache/tinyldm").expanduser()


def key_of(*parts) -> str:
    """A name for what the parts, anything that JSON holds, say together."""
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_header(folder: Path) -> dict | None:
    """The header of a finished cache folder; None when it is absent or one of its files hasn't the size written."""
    try:
        header = json.loads((folder / HEADER).read_text())
        sizes = {name: (folder / name).stat().st_size for name in header["files"]}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return header if sizes == header["files"] else None


def build_once(folder: Path, build: Callable[[Path], dict]) -> dict:
    """The header of a folder, built first if it isn't there: build(empty folder) writes files and returns a header.

    Built aside, flushed to the disk and renamed, so that the folder is never seen half-written; a second process
    waits for the first and then finds its result. OSError names a file that couldn't be written.
    """
    header = read_header(folder)
    if header is not None:  # a finished cache is opened without writing, so it may be on a read-only disk
        return header
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(folder.name + ".lock")) as alone:
        header = read_header(folder)
        if header is not None:
            return header
        if alone:  # what a killed process left
            for stale in folder.parent.glob(f"{folder.name}.tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
        try:
            header = build(unfinished)
            header["files"] = {file.name: file.stat().st_size for file in unfinished.iterdir()}
            with writing(unfinished / HEADER) as file:
                file.write(json.dumps(header).encode())
            _flush(unfinished)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            os.rename(unfinished, folder)
            _flush(folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # what an error or Ctrl-C left of it
    return header


@contextmanager
def writing(path: Path):
    """An open binary file to write, flushed to the disk at the end; every OSError in the block names a file."""
    with naming(path), open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path):
    """An OSError without a file name gets this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def replacing(path: Path):
    """A temporary path beside `path`, which takes its place when the block ends well: never a half-written file.

    Every OSError in the block names a file.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}{path.suffix}")
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def require_space(path: Path, size: int) -> None:
    """OSError now rather than hours later when the disk has no room for a file of that many bytes."""
    free = shutil.disk_usage(path.parent).free
    if free < size:
        reason = f"the cache needs {size / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left"
        raise OSError(errno.ENOSPC, reason, str(path))


@contextmanager
def locked(path: Path, busy: str = ""):
    """Hold a lock file, waiting while another process does, or raising InputError(busy); False where there are no locks.

    Without them (Windows, some network disks) each process builds its own cache, and one rename wins.
    """
    with open(path, "w") as file:
        try:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if busy:
                    raise InputError(busy) from None
                print(f"waiting for another run that builds {path.with_suffix('')}", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            held = True
        except (ImportError, OSError):
            held = False
        yield held


def _flush(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
