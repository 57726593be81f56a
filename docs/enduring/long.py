"""Long jobs, interrupted now and then, whose memory and open files are watched."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from enduring.jobs import PAUSE, TRAIN, demand, ended_within, fork, last_words, logged

SETTLED = 0.3  # of a job, after which its memory should not grow any more
ENOUGH = 500  # steps or pictures that show whether it does
GROWTH = 0.03  # that counts as flat


def measure(pid: int) -> tuple[int, int]:
    """(bytes of memory of its own, open files) of a process; zeros where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0


def watched(line: str, stop_at: Callable[[], bool]) -> tuple[int, list[tuple[int, int]]]:
    """Run a command line, interrupt it as by Ctrl-C once stop_at() says so; status and measures."""
    pid = fork(line)
    found = []
    asked = False
    while True:
        status = ended_within(pid, PAUSE)
        if status is not None:
            return status, found
        found.append(measure(pid))
        if not asked and stop_at():
            os.kill(pid, signal.SIGINT)
            asked = True


def flat(measures: Sequence[tuple[int, int]], what: str, count: int) -> str:
    """Demand that memory and open files do not grow once a job is under way; both in words.

    count: of steps or pictures; few say nothing
    """
    settled = [m for m in measures if m[0]][int(SETTLED * len(measures)) : -1]
    if len(settled) < 30 or count < ENOUGH:
        return "too short to tell"
    third = len(settled) // 3
    early, late = settled[:third], settled[-third:]
    before, after = (median(m[0] for m in part) for part in (early, late))
    files_before, files_after = (median(m[1] for m in part) for part in (early, late))
    words = f"{before / 1e6:.0f} to {after / 1e6:.0f} MB, "
    words += f"{files_before:.0f} to {files_after:.0f} open files"
    demand(after < before * (1 + GROWTH), f"{what}: memory grows: {words}")
    demand(files_after <= files_before, f"{what}: open files grow: {words}")
    return words


def long_training(steps: int) -> str:
    """A long training, interrupted after a third and after two thirds."""
    line = f"{TRAIN} --max-steps {steps} --save-every {max(1, steps // 20)} --out long"
    measures: list[tuple[int, int]] = []
    for part in (1, 2, 3):

        def far_enough(part: int = part) -> bool:
            return part < 3 and rows_in("long") >= part * steps // 3

        status, found = watched(line, far_enough)
        demand(status == (0 if part == 3 else 130), f"status {status}: {last_words()}")
        line = f"train.py --resume --out long --max-steps {steps}"
        measures = max(measures, found, key=len)
    numbers = [row[0] for row in logged("long")[1:]]
    demand(numbers == [str(k + 1) for k in range(steps)], "steps are missing or come twice")
    how = flat(measures, "training", steps)
    return f"| {steps} steps, 2 times interrupted | {how} | each step once |"


def rows_in(run: str) -> int:
    """How many rows a log has by now."""
    file = Path(run, "log.csv")
    return len(file.read_bytes().splitlines()) - 1 if file.exists() else 0


def long_drawing(pictures: int) -> str:
    """Thousands of pictures, interrupted after a third and killed after two thirds."""
    Path("many.txt").write_text("\n".join(f"picture {k}" for k in range(pictures)))
    line = "sample.py --run long --prompts many.txt --steps 1 --device cpu --precision float32 "
    line += f"--batch-size {8 if pictures >= ENOUGH else 1} --out many"
    out = Path("many")
    made: dict[str, tuple[int, int]] = {}
    measures: list[tuple[int, int]] = []
    for part in (1, 2, 3):

        def far_enough(part: int = part) -> bool:
            names = os.listdir(out) if out.exists() else []
            there = sum(name[0].isdigit() for name in names)  # not those half-written
            return part < 3 and there >= part * pictures // 3

        status, found = watched(line, far_enough)
        demand(status == (0 if part == 3 else 130), f"status {status}: {last_words()}")
        measures = max(measures, found, key=len)
        now = {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in out.glob("*.png")}
        demand(all(now.get(name) == made[name] for name in made), "a picture was drawn twice")
        made = now
    names = {f"{k:04d}.png" for k in range(pictures)}
    demand(made.keys() == names, f"{len(names ^ made.keys())} pictures missing or too many")
    how = flat(measures, "drawing", pictures)
    return f"| {pictures} pictures, 2 times interrupted | {how} | each once |"


def part_long(options: argparse.Namespace) -> list[str]:
    """A long training and a long drawing."""
    return [long_training(options.steps), long_drawing(options.pictures)]
