"""Checks that commands make of their options before anything slow starts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from tinyldm.cli import flag_of
from tinyldm.errors import InputError


def check_file(out: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """InputError: the file --out has none of the suffixes, or exists and may not be overwritten."""
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: expected a name that ends in {' or '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another one, or --overwrite")


def check_numbers(
    options: Namespace, above_zero: Iterable[str] = (), from_zero: Iterable[str] = ()
) -> None:
    """InputError: a number among the options is too small, or no number at all.

    above_zero, from_zero: names of options; --seed is checked in any case. None is let through.
    """
    for name in (*above_zero, *from_zero, "seed"):
        value = getattr(options, name)
        zero_will_do = name not in above_zero
        if value is None or 0 < value < 2**63 or (value == 0 and zero_will_do):
            continue
        lowest = "from 0 on" if zero_will_do else "above 0"
        raise InputError(f"{flag_of(name)} {value}: expected a number {lowest}")
