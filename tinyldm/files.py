"""Writing files and folders whole or not at all, and reading text files. See also folders.py."""

from __future__ import annotations

import csv
import errno
import glob
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import BinaryIO

from tinyldm.errors import InputError

# ---- writing


DRAFT = ".tinyldm-"
"""So begins the name of a file or folder that is not complete yet."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put this path into an OSError that the block raises, unless it names another file already.

    A draft of `path`, or a file in it, is called by the name that it was to have.
    """
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)  # one that was made of a sentence has no strerror
        if error.filename is None:
            raise OSError(error.errno, what, str(path)) from error
        _, is_draft, rest = str(error.filename).rpartition(DRAFT)  # of drafts in drafts, the inner
        if is_draft:
            raise OSError(error.errno, what, str(path.joinpath(*Path(rest).parts[1:]))) from error
        raise


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing and flush it to the disk at the end of the block."""
    with naming(path), open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def append_file(path: Path, part: Path) -> None:
    """Append the bytes of another file to a file, and flush it to the disk."""
    with naming(path), open(path, "ab") as file, open(part, "rb") as more:
        shutil.copyfileobj(more, file, 2**24)
        file.flush()
        os.fsync(file.fileno())


def draft_name(path: Path) -> Path:
    """A name beside `path` that nobody has, for what is to take its place; it keeps the suffix."""
    return path.with_name(f"{DRAFT}{secrets.token_hex(4)}-{path.name[-40:]}")


def clear_drafts(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left in a folder of its drafts: all, or those of one name.

    Only for whoever holds the lock of the folder, or of what is called `name` in it.
    """
    ending = name if name == "*" else glob.escape(name[-40:])
    for left in folder.glob(f"{DRAFT}????????-{ending}"):
        remove_draft(left)


def remove_draft(draft: Path) -> None:
    """Remove a draft, a file or a folder, if it is there."""
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    Nobody ever sees a half-written file, and a link at `path` is replaced, not followed. The file
    has the mode that umask gives. Every OSError of the block names a file.
    """
    draft = draft_name(path)
    try:
        with naming(path):
            # fails if anything is there, a link among others
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            mode = os.fstat(descriptor).st_mode & 0o777
            os.close(descriptor)
            yield draft
            os.chmod(draft, mode)  # safetensors lets nobody else read what it writes
            os.replace(draft, path)
    finally:
        remove_draft(draft)


def write_text(path: Path, text: str) -> None:
    """Write text to a UTF-8 file, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a folder, and those that it lies in, as far as they are missing.

    If the block fails, those that were made are removed again, unless something lies in them.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):  # it is not empty
                place.rmdir()
        raise


@contextmanager
def draft_folder(folder: Path, inside: bool = False) -> Iterator[Path]:
    """An empty folder, for the block to fill and to move; removed if it is not.

    It lies beside `folder` or, if that is there already, inside.
    """
    draft = draft_name(folder / "files" if inside else folder)
    try:
        with naming(folder):
            draft.mkdir()
            yield draft
    finally:
        remove_draft(draft)


def settle_files(folder: Path) -> None:
    """Make sure that the files in a folder survive a loss of power, with the modes of umask."""
    mode = folder.stat().st_mode & 0o666
    for file in folder.iterdir():
        os.chmod(file, mode)  # transformers lets nobody else read what it writes
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """A folder for the block to write files to, which then take their places in `folder` together.

    So a full disk leaves all of the old ones as they were. Whatever else the folder holds stays.
    config.json is the last: without it, nobody takes the others for complete.
    """
    is_new = not folder.exists()
    with making(folder.parent), draft_folder(folder, inside=not is_new) as draft:
        yield draft
        settle_files(draft)
        if is_new:
            os.rename(draft, folder)
            return
        for file in sorted(draft.iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, folder / file.name)


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


# ---- reading


OTHER_FILES = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def check_regular(file: str | Path, kind: str = "file", expected: str = "a file") -> os.stat_result:
    """InputError unless there is a regular file; a pipe or a device would keep us waiting.

    kind:     what a message calls it where it is missing
    expected: what the message calls it where something else is there
    Returns what os.stat says of it.
    """
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name of a file
        raise InputError(f"{file}: no such {kind}") from None
    if not stat.S_ISREG(status.st_mode):
        found = OTHER_FILES.get(stat.S_IFMT(status.st_mode), "special file")
        raise InputError(f"{file}: is a {found}, expected {expected}")
    return status


def checksum(content: bytes) -> str:
    """A hash of bytes; it tells damage, not malice."""
    return blake2b(content, digest_size=16).hexdigest()


def file_checksum(file: Path) -> str:
    """The checksum of the bytes of a file, which is read in pieces."""
    with open(file, "rb") as opened:
        return file_digest(opened, lambda: blake2b(digest_size=16)).hexdigest()


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark."""
    check_regular(file)
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
