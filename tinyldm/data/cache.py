"""Folders that are built once and then shared. They are whole or absent, never half-written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tinyldm.files import clear_drafts, draft_folder, flush_folder, writing
from tinyldm.folders import locked

HEADER = "cache.json"


def cache_folder() -> Path:
    """Where caches are: the environment's TINYLDM_CACHE, or else ~/.cache/tinyldm."""
    return Path(os.environ.get("TINYLDM_CACHE") or "~/.cache/tinyldm").expanduser()


def key_of(parts: Sequence[Any]) -> str:
    """A hash of parts, which are any values that JSON can hold: a name for a cache folder."""
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_header(folder: Path) -> dict[str, Any] | None:
    """The header of a finished cache folder.

    None if it is absent, or if one of its files does not have the size that was written.
    """
    try:
        header = json.loads((folder / HEADER).read_text())
        sizes = {name: (folder / name).stat().st_size for name in header["files"]}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return header if sizes == header["files"] else None


def build_once(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The header of a cache folder, which is built first if it is not there.

    build(empty folder) writes files and returns a header. It works aside; its folder is flushed to
    the disk and renamed, so that a half-written cache is never seen. A second process waits for
    the first and then finds its result. OSError names a file that could not be written.
    """
    header = read_header(folder)
    if header is not None:  # opened without writing, so it may lie on a read-only disk
        return header
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(folder.name + ".lock")) as alone:
        header = read_header(folder)
        if header is not None:
            return header
        if alone:  # what a killed process left, under the names of today and of earlier versions
            clear_drafts(folder.parent, folder.name)
            for stale in folder.parent.glob(f"{folder.name}.tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)
        with draft_folder(folder) as unfinished:
            header = build(unfinished)
            header["files"] = {file.name: file.stat().st_size for file in unfinished.iterdir()}
            with writing(unfinished / HEADER) as file:
                file.write(json.dumps(header).encode())
            flush_folder(unfinished)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            os.rename(unfinished, folder)
            flush_folder(folder.parent)
    return header
