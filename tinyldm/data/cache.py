"""Folders that are built once and then shared. They are whole or absent, never half-written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tinyldm.data.checksums import (
    CHECKSUMS,
    ITSELF,
    LARGE,
    Verification,
    first_damaged,
    header_checksum,
    with_checksums,
)
from tinyldm.errors import InputError, say
from tinyldm.files import checksum, clear_drafts, draft_folder, flush_folder, write_text, writing
from tinyldm.folders import locked
from tinyldm.typed import Index, as_type, read_json

HEADER = "cache.json"
Doubt = Callable[[Path, dict[str, Any]], str | None]


@dataclass(frozen=True, kw_only=True)
class Header:
    """The type of what is read of the header of any cache folder.

    files:     the size in bytes of each file
    checksums: of each file and of the header; those of the first versions have none
    """

    files: dict[str, Index]
    checksums: dict[str, str] = field(default_factory=dict)


def cache_folder() -> Path:
    """Where caches are: the environment's TINYLDM_CACHE, or else ~/.cache/tinyldm."""
    return Path(os.environ.get("TINYLDM_CACHE") or "~/.cache/tinyldm").expanduser()


def key_of(parts: Sequence[Any]) -> str:
    """A hash of parts, which are any values that JSON can hold: a name for a cache folder."""
    return checksum(json.dumps(parts, sort_keys=True).encode())


def read_header(folder: Path, kind: type[Header]) -> dict[str, Any] | None:
    """The header of a finished cache folder, of a type.

    None if it is absent or of another type, or if one of its files does not have the size that was
    written.
    """
    file = folder / HEADER
    try:
        header: dict[str, Any] = read_json(file, dict[str, Any])
        as_type(header, str(file), kind, extra="ignore")
    except InputError:
        return None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    is_whole = header["files"].items() <= sizes.items()
    return header if is_whole else None


def build_once(
    folder: Path,
    build: Callable[[Path], dict[str, Any]],
    kind: type[Header] = Header,
    verification: Verification | None = None,
    doubt: Doubt = lambda folder, header: None,
) -> dict[str, Any]:
    """The header of a cache folder, which is built first if it is absent or damaged.

    build(empty folder) writes files and returns a header. It works aside; its folder is flushed to
    the disk and renamed, so that a half-written cache is never seen. A second process waits for
    the first and then finds its result. OSError names a file that could not be written.

    kind: the type of the header; verification, doubt: see inspect()
    """
    header, _ = inspect(folder, kind, verification, doubt)
    if header is not None:  # opened without writing, so it may lie on a read-only disk
        return header
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(folder.name + ".lock")) as alone:
        header, problem = inspect(folder, kind, verification, doubt)
        if header is not None:
            return header
        if problem is not None:
            say(f"{folder}: {problem}; it is built anew", sys.stderr)
        if alone:  # what a killed process left, under the names of today and of earlier versions
            clear_drafts(folder.parent, folder.name)
            for stale in folder.parent.glob(f"{folder.name}.tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)
        with draft_folder(folder) as unfinished:
            header = build(unfinished)
            header["files"] = {file.name: file.stat().st_size for file in unfinished.iterdir()}
            header = with_checksums(unfinished, header)
            with writing(unfinished / HEADER) as file:
                file.write(json.dumps(header).encode())
            flush_folder(unfinished)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            os.rename(unfinished, folder)
            flush_folder(folder.parent)
    return header


def inspect(
    folder: Path,
    kind: type[Header],
    verification: Verification | None,
    doubt: Doubt,
) -> tuple[dict[str, Any] | None, str | None]:
    """The header of a cache folder that is whole, or None and what is wrong, if there is anything.

    verification: takes over the large files; None: sizes alone are compared, for a process that
                  follows one which has compared the checksums
    doubt:        what speaks against a cache of the first versions, which has no checksums; it is
                  given them where nothing does
    """
    header = read_header(folder, kind)
    if header is None:
        return None, "is damaged" if (folder / HEADER).exists() else None
    if verification is None:
        return header, None
    large = [name for name, size in header["files"].items() if size > LARGE]
    small = [name for name in header["files"] if name not in large]
    if CHECKSUMS not in header:
        problem = doubt(folder, header)
        if problem is not None:
            return None, problem
        if large:
            verification.add(partial(record_checksums, folder, header))
        else:
            record_checksums(folder, header)
        return header, None
    if header[CHECKSUMS].get(ITSELF) != header_checksum(header):
        return None, f"{HEADER} is damaged"
    damaged = first_damaged(folder, header, small)
    if damaged is not None:
        return None, f"{damaged.name} is damaged"
    if large:
        verification.add(partial(discard_if_damaged, folder, header, large))
    return header, None


def problem_of(file: Path, read: Callable[[], object]) -> str:
    """Why a file that was left out of a cache cannot be read, by its name of today."""
    try:
        read()
    except InputError as error:
        return str(error)
    return f"{file}: could not be read when the cache was built"


def record_checksums(folder: Path, header: dict[str, Any]) -> None:
    """Add the checksums of a cache to its header, unless its disk is read-only."""
    complete = with_checksums(folder, header)
    with suppress(OSError):
        write_text(folder / HEADER, json.dumps(complete))


def discard_if_damaged(folder: Path, header: dict[str, Any], names: list[str]) -> str | None:
    """Compare files with their checksums; the line about the first that is damaged, or None.

    A damaged cache loses its header, so that it is built anew when it is needed next.
    """
    damaged = first_damaged(folder, header, names)
    if damaged is None:
        return None
    try:
        (folder / HEADER).unlink(missing_ok=True)
    except OSError:
        return f"{damaged}: damaged, and the run has read it; delete {folder} and start again"
    return f"{damaged}: damaged, and the run has read it; start again, and the cache is built anew"
