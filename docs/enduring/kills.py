"""Training, drawing and training an autoencoder under kill -9 at random moments."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from enduring.jobs import (
    TRAIN,
    check_equal,
    check_runs,
    demand,
    done,
    ended_within,
    finish,
    fork,
    has_checkpoint,
    last_words,
    litter,
)


def killed_until_done(
    next_line: Callable[[], str], longest: float, count: int, chance: random.Random
) -> int:
    """Run a job to its end, killing it at random moments; how often it was killed.

    next_line: the command line that goes on from what is there
    longest:   seconds after which a kill comes at the latest
    count:     kills, after which the job is left alone
    """
    kills = 0
    while True:
        pid = fork(next_line())
        status = ended_within(pid, chance.uniform(0, longest)) if kills < count else finish(pid)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            finish(pid)
            kills += 1
            continue
        demand(status == 0, f"exit status {status} after {kills} kills: {last_words()}")
        return kills


def times(kills: int, jobs: int, noun: str) -> str:
    """How many kills there were in how many jobs, in words."""
    return f"{kills} in {jobs} {noun}" + ("" if jobs == 1 else "s")


def kill_trainings(count: int, steps: int, chance: random.Random) -> str:
    """Kill trainings of train.py, from the building of the cache on."""
    line = f"{TRAIN} --max-steps {steps} --save-every 1"
    took = done(f"{line} --out whole")
    shutil.rmtree("cache")

    def next_line() -> str:
        if has_checkpoint("killed"):
            return f"train.py --resume --out killed --max-steps {steps}"
        return f"{line} --out killed" + (" --overwrite" if Path("killed/log.csv").exists() else "")

    kills, runs, compared = 0, 0, 0
    while kills < count:
        shutil.rmtree("killed", ignore_errors=True)
        if runs % 2 == 0:
            shutil.rmtree("cache", ignore_errors=True)
        kills += killed_until_done(next_line, took / 2, min(8, count - kills), chance)
        compared = check_runs("whole", "killed")
        demand(not litter("killed", "cache"), f"left behind: {litter('killed', 'cache')}")
        runs += 1
    return f"| kill -9 of train.py | {times(kills, runs, 'run')} | {compared} tensors equal |"


def kill_drawings(count: int, pictures: int, chance: random.Random) -> str:
    """Kill drawings of sample.py."""
    Path("prompts.txt").write_text("\n".join(f"picture {k}" for k in range(pictures)))
    line = "sample.py --run whole --prompts prompts.txt --steps 2 --device cpu --batch-size 1 "
    line += "--precision float32 --out "
    took = done(f"{line} whole-pictures")
    kills, runs = 0, 0
    while kills < count:
        shutil.rmtree("pictures", ignore_errors=True)
        kills += killed_until_done(
            lambda: f"{line} pictures", took / 2, min(5, count - kills), chance
        )
        for file in sorted(Path("whole-pictures").rglob("*.png")):
            other = Path("pictures") / file.relative_to("whole-pictures")
            demand(file.read_bytes() == other.read_bytes(), f"{other} is another picture")
        demand(not litter("pictures"), f"left behind: {litter('pictures')}")
        runs += 1
    return f"| kill -9 of sample.py | {times(kills, runs, 'job')} | {pictures} pictures equal |"


def kill_autoencoders(count: int, steps: int, chance: random.Random) -> str:
    """Kill trainings of python -m tinyldm vae."""
    line = f"tinyldm vae train --data data --size 16 --steps {steps} --batch-size 2 --save-every 2 "
    line += "--widths 4 4 --latent-channels 4 --device cpu --out "
    took = done(f"{line} whole-vae")

    def next_line() -> str:
        ready = Path("vae/recipe.json").exists() and Path("vae/training.safetensors").exists()
        way = " --resume" if ready else " --overwrite" if Path("vae").exists() else ""
        return f"{line} vae{way}"

    kills, runs, compared = 0, 0, 0
    while kills < count:
        shutil.rmtree("vae", ignore_errors=True)
        kills += killed_until_done(next_line, took / 2, min(5, count - kills), chance)
        compared = 0
        for name in ("training", "model"):
            file = f"{name}.safetensors"
            compared += check_equal(Path("whole-vae", file), Path("vae", file))
        runs += 1
    return f"| kill -9 of vae train | {times(kills, runs, 'run')} | {compared} tensors equal |"


def part_kills(options: argparse.Namespace) -> list[str]:
    """Kills of three commands."""
    chance = random.Random(options.seed)
    most = max(1, options.count // 5)
    steps = options.kill_steps
    rows = [kill_trainings(options.count - 2 * most, steps, chance)]
    rows.append(kill_drawings(most, steps, chance))
    rows.append(kill_autoencoders(most, steps, chance))
    return rows
