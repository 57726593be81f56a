"""Checksums of the files of a cache: made when it is built, compared when it is opened.

Files up to LARGE are compared at once, in about a second for each. Larger ones are compared by a
thread while training has begun; the run waits for it before it saves anything. Caches of the first
versions have no checksums; they get theirs once nothing speaks against what they hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from tinyldm.errors import InputError, say
from tinyldm.files import checksum, file_checksum

LARGE = 2**30  # bytes
CHECKSUMS = "checksums"  # the entry of a header: name of a file -> its checksum
ITSELF = "header"  # the name there for the header's other entries


def header_checksum(header: Mapping[str, Any]) -> str:
    """The checksum of the other entries of a header."""
    others = {name: value for name, value in header.items() if name != CHECKSUMS}
    return checksum(json.dumps(others, sort_keys=True).encode())


def with_checksums(folder: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """A header with the checksums of its files, which lie in the folder, and of itself."""
    sums = {name: file_checksum(folder / name) for name in header["files"]}
    return {**header, CHECKSUMS: {**sums, ITSELF: header_checksum(header)}}


def first_damaged(folder: Path, header: Mapping[str, Any], names: Iterable[str]) -> Path | None:
    """The first of these files whose checksum is not the one in the header."""
    for name in names:
        if file_checksum(folder / name) != header[CHECKSUMS].get(name):
            return folder / name
    return None


# ---- caches of the first versions, which have no checksums


def doubtful_latents(
    folder: Path, header: Mapping[str, Any], images: int, views: int
) -> str | None:
    """What speaks against a folder of latents of so many images with so many views, or None."""
    left_out = {int(index) for index in header["left_out"]}
    rows = (images - len(left_out)) * views
    fits = header["views"] == views and header["shape"][0] == rows
    if fits and max(left_out, default=0) < images and is_finite(folder / "latents.f16"):
        return None
    return "is damaged"


def doubtful_tokens(folder: Path, header: Mapping[str, Any], prompts: int) -> str | None:
    """What speaks against a folder of the tokens of so many prompts, or None."""
    offsets = np.fromfile(folder / "offsets.i64", np.int64)
    fits = len(offsets) == prompts + 1 and (offsets[0], offsets[-1]) == (0, header["tokens"])
    if fits and bool((offsets[1:] >= offsets[:-1]).all()) and is_finite(folder / "tokens.f16"):
        return None
    return "is damaged"


def is_finite(file: Path) -> bool:
    """Whether a file of float16 holds neither NaN nor an infinity."""
    at_once = 2**24
    starts = range(0, file.stat().st_size, 2 * at_once)
    return all(
        np.isfinite(np.fromfile(file, np.float16, at_once, offset=start)).all() for start in starts
    )


# ---- large files


class Damaged(InputError):
    """What a run is trained on turns out to be damaged: what it has learned is worth nothing."""


class Verification:
    """A thread that goes through the large files of caches.

    problem: the line about the first that is damaged; None as long as none is known
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.jobs: list[Callable[[], str | None]] = []
        self.thread: Thread | None = None

    def add(self, job: Callable[[], str | None]) -> None:
        """Have the thread call job(), which returns a line if it finds a problem."""
        self.jobs.append(job)

    def start(self) -> None:
        """Start the thread, if there is anything to do."""
        if self.jobs:
            self.thread = Thread(target=self._run, name="checksums", daemon=True)
            self.thread.start()

    def _run(self) -> None:
        for job in self.jobs:
            try:
                self.problem = job()
            except OSError as error:
                self.problem = f"{error.filename}: {error.strerror or error}"
            if self.problem is not None:
                return

    def wait(self) -> None:
        """Return when every file is known to be whole; Damaged as soon as one is not."""
        if self.thread is not None and self.thread.is_alive():
            say("waiting for the checksums of the cache", sys.stderr)
        if self.thread is not None:
            self.thread.join()
        if self.problem is not None:
            raise Damaged(self.problem)
