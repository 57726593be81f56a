"""Files that are whole or absent, locks, and reading with one-line errors."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tinyldm.errors import InputError


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


@contextmanager
def whole_folder(folder: Path, replace: bool = False):
    """An empty draft beside a folder, which becomes the folder when the block ends well.

    So the folder appears when it is complete, and an interrupted block leaves nothing behind.
    replace: a folder that is there already gives way, at the very end; otherwise that is an OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = Path(temporary) / "draft"
        draft.mkdir()
        yield draft
        if replace and folder.exists():
            shutil.rmtree(folder)
        os.rename(draft, folder)


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
                print(
                    f"waiting for another run that builds {path.with_suffix('')}",
                    file=sys.stderr,
                    flush=True,
                )
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


def read_json(file: Path, kind: type | tuple[type, ...]):
    """The content of a JSON file whose outermost value is of the kind: dict, list or either."""
    return _parse(_read(file), str(file), kind)


def read_csv(file: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header that has these columns, values stripped."""
    rows = csv.DictReader(io.StringIO(_read(file), newline=""), skipinitialspace=True, strict=True)
    try:
        header = [(name or "").strip() for name in rows.fieldnames or ()]
        wrong = [name for name in columns if header.count(name) != 1]
        if wrong:
            raise InputError(
                f"{file}: no column {wrong[0]!r}, or two, expected {','.join(columns)}, got {','.join(header)}"
            )
        rows.fieldnames = header
        table = []
        for row in rows:
            if None in row or any(
                row[name] is None for name in columns
            ):  # a comma in a caption without quotes, for one
                raise InputError(
                    f"{file}: line {rows.line_num} has more or fewer columns than the header"
                )
            table.append({name: row[name].strip() for name in columns})
    except csv.Error as error:
        raise InputError(f"{file}: line {rows.reader.line_num}: not CSV ({error})") from None
    return table


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")  # a byte-order mark is no part of the text
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start})") from None


def _parse(text: str, where: str, kind):
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # \ud800 alone would pass JSON, but is no text
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list"}
        got = names.get(type(value), type(value).__name__)
        wanted = " or ".join(names[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{where}: expected JSON with {wanted}, got {got}")
    return value


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON; one that has a key twice would lose one of the two."""
    keys = sorted(key for key, _ in pairs)
    for key, after in itertools.pairwise(keys):
        if key == after:
            raise ValueError(f"the key {key!r} comes twice")
    return dict(pairs)
