"""Folders that a command writes: locked while it does, known again by a marker, and never emptied
of what somebody else has put there.

A Kind says what a command leaves in such a folder. Only files that it names are ever removed, and
no symbolic link in the folder is followed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tinyldm.errors import InputError, say
from tinyldm.files import clear_drafts, draft_folder, making, write_text
from tinyldm.typed import as_type, read_json, unsealed

LOCK = ".lock"
MARKER = ".tinyldm.json"
RECORD = "about/samples.json"
"""In a folder of samples; its "images" are the names of the pictures beside about/."""
DRAWN = "drawn by tinyldm"
"""What a picture of a folder of samples says of itself, in its Exif data (data/images.py)."""


def never(folder: Path) -> bool:
    """No folder without a marker is of this kind."""
    return False


@dataclass(frozen=True)
class Kind:
    """What a command leaves in a folder.

    name:    what the marker says the folder holds
    files:   the paths of its files in the folder, a regular expression; pictures that a RECORD
             names, and that say they were drawn, belong to it wherever the record does
    folders: the folders in it that the command writes to
    known:   whether a folder is of this kind, for those without a marker
    lock:    the lock file
    marked:  whether the folder gets a marker
    doing:   what a process does that holds the lock
    """

    name: str
    files: str
    folders: tuple[str, ...] = ()
    known: Callable[[Path], bool] = never
    lock: str = LOCK
    marked: bool = True
    doing: str = "training"

    def holds(self, folder: Path) -> bool:
        """Whether a folder is one that this command wrote."""
        marked = marked_as(folder)
        return self.known(folder) if marked is None else marked == self.name


# ---- what is there


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but a lock, a marker, and drafts of killed processes."""
    return folder.is_dir() and all(path.name.startswith(OWN) for path in folder.iterdir())


OWN = (LOCK, ".tinyldm")  # how the names of locks, markers and drafts begin


def marked_as(folder: Path) -> str | None:
    """What a folder holds according to its marker; None without a marker, "" if it is damaged."""
    marker = folder / MARKER
    if not marker.is_file() or marker.is_symlink():
        return None
    try:
        return str(read_json(marker, dict[str, str]).get("holds", ""))
    except (InputError, OSError):
        return ""


def content_of(folder: Path) -> str | None:
    """What one of our commands has written to a folder: the name of a Kind; None: nothing known."""
    marked = marked_as(folder)
    if marked is None and numbered(folder / "checkpoints"):
        return "run"  # the first ones have no marker
    if marked is None and (folder / RECORD).is_file():
        return "samples"
    return marked


def numbered(folder: Path, ending: str = "") -> list[Path]:
    """What is called step-NUMBER and then `ending` in a folder, in the order of the numbers."""
    pattern = re.compile(rf"step-([0-9]+){re.escape(ending)}")
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match is not None:
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def written(folder: Path, kind: Kind) -> Iterator[Path]:
    """The files in a folder that are of this kind; never a link."""
    pattern = re.compile(kind.files)
    for place, _, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        is_ours = pattern.fullmatch((inside / RECORD).as_posix())
        pictures = recorded(Path(place)) if is_ours else set()
        for name in names:
            path = Path(place, name)
            if path.is_symlink():
                continue
            drawn = name in pictures and is_drawn(path)
            if drawn or pattern.fullmatch((inside / name).as_posix()):
                yield path


def recorded(samples: Path) -> set[str]:
    """The names of the pictures of a folder of samples; none if its record is damaged."""
    try:
        record = unsealed(read_json(samples / RECORD, dict[str, Any]), RECORD)
        return set(as_type(record.get("images", {}), RECORD, dict[str, str]))
    except (InputError, OSError):
        return set()


def is_drawn(path: Path) -> bool:
    """Whether a file, no link, is a picture that says it was drawn into a folder of samples.

    A record alone proves nothing: somebody may have written another name into it.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(512)
        file.seek(max(0, path.stat().st_size - 512))
        end = file.read()  # where a WebP has its Exif data
    return DRAWN.encode() in start + end


def foreign(folder: Path, kind: Kind) -> Path | None:
    """A file or a link in a folder that is not of this kind, if there is one."""
    ours = set(written(folder, kind))
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in [*links, *names]:
            path = Path(place, name)
            if path not in ours and not (name.startswith(OWN) and not path.is_symlink()):
                return path
    return None


def remove_written(folder: Path, kind: Kind) -> None:
    """Remove the files of this kind but for its lock, and the folders in which nothing else was."""
    files = [file for file in written(folder, kind) if file != folder / kind.lock]
    for path in files:
        path.unlink(missing_ok=True)
    emptied = {parent for path in files for parent in path.parents if folder in parent.parents}
    for place in sorted(emptied, key=lambda place: -len(place.parts)):
        if not any(place.iterdir()):
            place.rmdir()


def check_free(folder: Path, kind: Kind, overwrite: bool) -> None:
    """InputError: the folder --out holds something that the command may not write over."""
    if not folder.exists() or is_empty(folder):
        return
    if not folder.is_dir():
        raise InputError(f"--out {folder}: is a file; expected a folder")
    if not overwrite:
        raise InputError(f"--out {folder}: not empty; choose another folder or give --overwrite")
    content = content_of(folder)
    if content not in (None, kind.name):
        raise InputError(
            f"--out {folder}: was written by another command (holds: {content}), "
            "so --overwrite leaves it alone; choose another folder"
        )
    in_the_way = next(written(folder, kind), None)
    if in_the_way is not None and not kind.holds(folder):
        raise InputError(
            f"--out {folder}: {in_the_way.name} there was not written by this command, "
            "so --overwrite leaves it alone; choose another folder"
        )


# ---- locking


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[bool]:
    """Hold the lock file `path` during the block.

    While another process holds it, wait for it, or raise InputError(busy) if `busy` is given.
    Yields False on file systems without locks; there, processes are not kept apart.
    """
    lock = FileLock(path)
    try:
        acquire(lock, busy, waiting_for=path)
        held = True
    except NotImplementedError:
        held = False
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a symbolic link; expected a lock file or none") from None
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
        if not waiting_for.exists():  # nobody holds it: it cannot be made, as in /proc
            raise OSError(errno.ENOENT, "no lock can be made there", str(waiting_for)) from None
        name = waiting_for.name.removeprefix(".").removesuffix(".lock")
        built = waiting_for.with_name(name)
        say(f"waiting for another run that builds {built}", sys.stderr)
        lock.acquire()


@contextmanager
def owned(folder: Path, kind: Kind, option: str = "") -> Iterator[None]:
    """Own a folder during the block: no other process writes to it. It is made if it is not there.

    What killed processes left half-written is removed. If the block fails before it has written
    anything, the folder is left as it was found.
    option: the option that named the folder, for the InputError where another process owns it
    """
    places = [folder / name for name in kind.folders]
    for place in places:
        if place.is_symlink():
            raise InputError(f"{place}: is a symbolic link; expected a folder in {folder}")
    lock = folder / kind.lock
    busy = f"{option} {folder}".strip() + f": another process is {kind.doing} there"
    with making(lock.parent), locked(lock, busy):
        for place in (folder, *places):
            clear_drafts(place)
        if kind.marked and not (folder / MARKER).exists():
            mark(folder, kind)
        try:
            yield
        except BaseException:
            forget(folder, lock)
            raise


def mark(folder: Path, kind: Kind) -> None:
    """Let a folder say what it holds."""
    write_text(folder / MARKER, json.dumps({"holds": kind.name}) + "\n")


def forget(folder: Path, lock: Path) -> None:
    """Remove the lock and the marker of a folder that holds nothing else."""
    left = {path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    if left <= {lock, folder / MARKER}:
        for path in left:
            path.unlink()


@contextmanager
def owned_path(path: Path, busy: str = "") -> Iterator[None]:
    """Own a file or a folder that appears at the end of the block: no other process writes it.

    The lock lies beside it until then. Another process is waited for, or is an InputError(busy).
    """
    lock = path.with_name(f".{path.name}.lock")
    with making(path.parent), locked(lock, busy) as held:
        try:
            clear_drafts(path.parent, path.name)
            yield
        finally:
            if held:
                lock.unlink(missing_ok=True)


@contextmanager
def owned_file(file: Path) -> Iterator[None]:
    """Own a file that a command writes at the end of the block, such as --out scores.json."""
    with owned_path(file, busy=f"{file}: another process is writing it"):
        yield


@contextmanager
def whole_folder(folder: Path, kind: Kind, overwrite: bool = False) -> Iterator[Path]:
    """An empty draft of a folder, which becomes the folder when the block ends without an error.

    So the folder appears when it is complete, and an interrupted block leaves nothing behind.
    overwrite: one of this kind gives way, at the very end. InputError where the folder holds
               anything else
    """
    check_replaceable(folder, kind, overwrite)
    # where the folder is a link, that stays
    place = folder.resolve() if folder.is_symlink() or not folder.name else folder
    with owned_path(place), draft_folder(place) as draft:
        check_replaceable(folder, kind, overwrite)
        yield draft
        mark(draft, kind)
        check_replaceable(folder, kind, overwrite)
        if place.is_dir():
            remove_written(place, kind)
            forget(place, place / LOCK)
            place.rmdir()
        os.rename(draft, place)


def check_replaceable(folder: Path, kind: Kind, overwrite: bool) -> None:
    """InputError: a folder is there that a complete new one of its kind must not replace."""
    if not folder.exists() or is_empty(folder):
        return
    if not folder.is_dir() or not overwrite or not kind.holds(folder):
        raise InputError(
            f"{folder}: exists already and is not empty; choose another folder, "
            "or --overwrite one that this command wrote"
        )
    other = foreign(folder, kind)
    if other is not None:
        raise InputError(
            f"{other}: was not written by this command, so --overwrite leaves {folder} alone"
        )
