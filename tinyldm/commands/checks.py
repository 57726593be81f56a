"""Checks that commands make of their options before anything slow starts."""

from __future__ import annotations

from pathlib import Path

from tinyldm.errors import InputError


def check_file(out: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """InputError: the file --out has none of the suffixes, or exists and may not be overwritten."""
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: expected a name that ends in {' or '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another one, or --overwrite")
