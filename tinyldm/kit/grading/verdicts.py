"""The verdict on each exercise, and the command line of the grader."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path

import tinyldm

from .compare import WrongError
from .network import check_attention, check_guidance
from .noise import check_loss, check_schedule
from .solvers import check_ddim, check_ddpm, check_dpm_solver

PACKAGE = Path(tinyldm.__file__).parent
CHECKS: dict[str, Callable[[], None]] = {
    "schedule": check_schedule,
    "loss": check_loss,
    "ddim": check_ddim,
    "ddpm": check_ddpm,
    "guidance": check_guidance,
    "dpm-solver": check_dpm_solver,
    "attention": check_attention,
}


def verdict(name: str) -> str:
    """What is wrong with an exercise, in a line; "" if nothing is."""
    try:
        CHECKS[name]()
    except WrongError as wrong:
        return str(wrong)
    except NotImplementedError as error:
        return f"not written yet ({str(error).partition(': ')[2] or error})"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = next((f for f in reversed(frames) if PACKAGE in Path(f.filename).parents), None)
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if theirs is None:
            return f"what you return cannot be used: {told}"
        return f"in {Path(theirs.filename).name}, line {theirs.lineno}: {told}"
    return ""


def is_set(name: str) -> bool:
    """Whether an exercise is one of this folder: its README.md has a section of it."""
    page = Path(__file__).parents[1] / "README.md"
    return not page.is_file() or f"(`{name}`)" in page.read_text(encoding="utf-8")


def main() -> int:
    """Grade the exercises named, or all of this folder; returns the exit status."""
    parser = argparse.ArgumentParser(description="Grade the exercises of this folder.")
    known = [name for name in CHECKS if is_set(name)]
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(known))
    names = parser.parse_args().names or known
    for name in names:
        if name not in CHECKS:
            parser.error(f"no exercise {name}, expected some of {', '.join(known)}")
    right = 0
    for name in names:
        told = verdict(name)
        right += not told
        print(f"{name:<12}{told or 'right'}")
    print(f"{right} of {len(names)} right")
    return 0 if right == len(names) else 1
