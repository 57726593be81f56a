"""Folders that are built once and then shared: whole or absent, whatever interrupts or competes with the building."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from tinyldm.files import _flush, locked, writing

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
    if (
        header is not None
    ):  # a finished cache is opened without writing, so it may be on a read-only disk
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
