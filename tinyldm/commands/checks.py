"""Checks that commands make of their options before anything slow starts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tinyldm.errors import InputError
from tinyldm.files import is_empty, locked


def check_empty(out: Path, overwrite: bool) -> None:
    """InputError: the folder --out holds something and may not be overwritten."""
    if overwrite or not out.exists() or is_empty(out):
        return
    raise InputError(f"--out {out}: not empty; choose another folder or give --overwrite")


def check_file(out: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """InputError: the file --out has none of the suffixes, or exists and may not be overwritten."""
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: expected a name that ends in {' or '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another one, or --overwrite")


def lock_folder(out: Path) -> AbstractContextManager[object]:
    """Lock the folder --out for this process. Fails before training starts if it cannot be written.

    Makes the folder if it is not there; InputError: another process is training in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    return locked(out / ".lock", busy=f"--out {out}: another process is training there")
