"""Writing files and folders whole or not at all, locking, and reading text files."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from tinyldm.errors import InputError, say

# ---- writing


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Put this path into an OSError that the block raises, unless it names a file already.

    temporary: stands for the path; an error that names it, or a file in it, names the path instead
    """
    try:
        yield
    except OSError as error:
        named = path if error.filename is None else Path(str(error.filename))
        if temporary is not None and named.is_relative_to(temporary):
            named = path / named.relative_to(temporary)
        if str(named) == str(error.filename):
            raise
        what = error.strerror or str(error)  # one that was made of a sentence has no strerror
        raise OSError(error.errno, what, str(named)) from error


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing and flush it to the disk at the end of the block."""
    with naming(path), open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    Nobody ever sees a half-written file. Every OSError of the block names a file.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}{path.suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text to a UTF-8 file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """An empty draft of a folder, which becomes the folder when the block ends without an error.

    So the folder appears when it is complete, and an interrupted block leaves nothing behind.
    replace: a folder that is there gives way, at the very end; otherwise that is an OSError
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = Path(temporary) / "draft"
        draft.mkdir()
        with naming(folder, draft):
            yield draft
            if replace and folder.exists():
                shutil.rmtree(folder)
            os.rename(draft, folder)


def require_space(path: Path, size: int) -> None:
    """OSError now, rather than hours later, if the disk has no room for a file of `size` bytes."""
    free = shutil.disk_usage(path.parent).free
    if free < size:
        reason = f"the cache needs {size / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left"
        raise OSError(errno.ENOSPC, reason, str(path))


def flush_folder(folder: Path) -> None:
    """Make sure that the names in a folder survive a loss of power."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[bool]:
    """Hold the lock file `path` during the block.

    While another process holds it, wait for it, or raise InputError(busy) if `busy` is given.
    Yields False on file systems without locks; there, processes are not kept apart.
    """
    lock = FileLock(path)
    try:
        acquire(lock, busy, waiting_for=path.with_suffix(""))
        held = True
    except NotImplementedError:
        held = False
    except OSError as error:
        if error.filename is not None:  # the file itself cannot be opened
            raise
        held = False
    try:
        yield held
    finally:
        if held:
            lock.release()


def acquire(lock: FileLock, busy: str, waiting_for: Path) -> None:
    """Acquire a lock at once. Where it is taken: InputError(busy), or print a line and wait."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of file systems with locks of another kind
            lock.acquire(timeout=0)
    except Timeout:
        if busy:
            raise InputError(busy) from None
        say(f"waiting for another run that builds {waiting_for}", sys.stderr)
        lock.acquire()


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or nothing but the lock file .lock."""
    return folder.is_dir() and all(path.name == ".lock" for path in folder.iterdir())


# ---- reading


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark."""
    if not file.is_file():  # a pipe or a device would keep us waiting
        raise InputError(f"{file}: no such file")
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start})") from None


def read_csv(file: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file whose header has these columns; values are stripped."""
    stream = io.StringIO(read_text(file), newline="")
    rows = csv.reader(stream, skipinitialspace=True, strict=True)
    table = []
    try:
        header = [name.strip() for name in next(rows, [])]
        for name in columns:
            if header.count(name) != 1:
                expected, got = ",".join(columns), ",".join(header)
                raise InputError(f"{file}: expected one column {name!r} of {expected}, got {got}")
        for cells in rows:
            if not cells:
                continue
            row = dict(zip(header, cells, strict=False))
            # more cells than columns: such as a caption with a comma but no quotes
            if len(cells) > len(header) or not row.keys() >= set(columns):
                raise InputError(
                    f"{file}: line {rows.line_num} has more or fewer columns than the header"
                )
            table.append({name: row[name].strip() for name in columns})
    except csv.Error as error:
        raise InputError(f"{file}: line {rows.line_num}: not CSV ({error})") from None
    return table
