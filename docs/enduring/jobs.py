"""Commands as processes that are watched and killed, and comparisons of what they leave."""

from __future__ import annotations

import csv
import os
import sys
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NETWORK = """
from dataclasses import replace

from tinyldm.nn.unet import UNet, UNetConfig

def build(channels, size, token_dim, vector_dim, map_channels):
    shape = UNetConfig(channels, channels, (8, 16), ("none", "cross"), 1, 2, groups=4)
    return UNet(replace(shape, token_dim=token_dim))
"""
TRAIN = (
    "train.py --data data --vae tiny --text-encoder tiny --network tiny_network:build --size 16 "
    "--batch-size 4 --warmup 1 --device cpu --precision float32 --sample-every 1000000"
)
HEAVY = (
    "sample",
    "train",
    "tinyldm.commands.vae",
    "tinyldm.pages.report",
    "tinyldm.sampling.job",
    "tinyldm.stage_one.training",
    "tinyldm.training.trainer",
)
PAUSE = 0.02
"""Seconds between two looks at a job, which must not be over before its interruption."""


class Broken(Exception):
    """A promise that did not hold."""


def demand(true: bool, what: str) -> None:
    """Raise Broken unless something is true."""
    if not true:
        raise Broken(what)


def workplace(folder: Path) -> None:
    """Enter an empty folder with twelve small images and a network; import what commands need."""
    import numpy as np
    from PIL import Image

    from tinyldm.data import encode

    encode.PIXELS_AT_ONCE = {"cpu": 2 * 16 * 16}  # so that twelve images are several batches
    folder.mkdir(parents=True)
    os.chdir(folder)
    os.environ.update(TINYLDM_CACHE=str(folder / "cache"), HF_HUB_OFFLINE="1")
    os.environ.update(TOKENIZERS_PARALLELISM="false")
    Path("tiny_network.py").write_text(NETWORK)
    Path("data").mkdir()
    lines = []
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"data/{k}.png")
        lines.append(f'{{"file_name": "{k}.png", "text": "number {k}"}}')
    Path("data/metadata.jsonl").write_text("\n".join(lines))
    for name in HEAVY:  # so that the forked processes find them imported
        import_module(name)
    from tinyldm.frozen.text import TextEncoder

    TextEncoder.load("tiny")  # imports most of transformers


# ---- commands as processes


def call(line: str) -> int:
    """Run a command line in this process; its exit status."""
    import sample
    import train
    from tinyldm.__main__ import COMMANDS
    from tinyldm.cli import dispatch, guarded

    sys.argv = line.split()
    if sys.argv[0] == "train.py":
        return guarded(train.main)
    if sys.argv[0] == "sample.py":
        return guarded(sample.main)
    return dispatch(COMMANDS, sys.argv[1:])


def fork(line: str, **environment: str) -> int:
    """Start a command line in a process of its own, which says what it says into log.txt."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = call(line)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def finish(pid: int) -> int:
    """Wait for a process; its exit status, or the negative number of the signal it died of."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def ended_within(pid: int, seconds: float) -> int | None:
    """The exit status of a process that ends so soon; None if it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def done(line: str) -> float:
    """Run a command line to its end; the seconds it took."""
    start = time.monotonic()
    status = finish(fork(line))
    demand(status == 0, f"{line}: exit status {status}: {last_words()}")
    return time.monotonic() - start


def last_words() -> str:
    """The last line that a process said."""
    lines = Path("log.txt").read_text(errors="replace").splitlines()
    return lines[-1] if lines else ""


# ---- what must be equal


def newest(run: str) -> Path:
    """The newest checkpoint of a run."""
    from tinyldm.training.checkpoint import find_checkpoint

    return find_checkpoint(run)


def has_checkpoint(run: str) -> bool:
    """Whether there is one to go on from."""
    return any(Path(run).glob("checkpoints/step-*/config.json"))


def check_equal(a: Path, b: Path) -> int:
    """Demand that two files of weights are equal bit for bit; how many tensors they hold."""
    from safetensors.torch import load_file

    one, other = load_file(a), load_file(b)
    demand(one.keys() == other.keys(), f"{b}: other tensors than {a}")
    for name in one:
        same = one[name].numpy().tobytes() == other[name].numpy().tobytes()
        demand(same, f"{b}: {name} is not what it is in {a}")
    return len(one)


def check_runs(a: str, b: str) -> int:
    """Demand that two runs ended in the same place; how many tensors were compared."""
    demand(newest(a).name == newest(b).name, f"{b} ended at {newest(b).name}")
    compared = 0
    for name in ("model", "training", "latents"):
        file = f"{name}.safetensors"
        compared += check_equal(newest(a) / file, newest(b) / file)
    demand(logged(a) == logged(b), f"{b}/log.csv differs from {a}/log.csv")
    return compared


def logged(run: str) -> list[list[str]]:
    """The rows of a log without the speed."""
    with open(Path(run) / "log.csv", newline="") as stream:
        return [row[:-1] for row in csv.reader(stream)]


def litter(*folders: str) -> list[str]:
    """Temporary files and folders that are still there; locks and markers are to stay."""
    from tinyldm.folders import MARKER

    found = []
    for folder in folders:
        for path in Path(folder).rglob("*"):
            ours = path.name.endswith(".lock") or path.name == MARKER
            hidden = path.name.startswith(".") and not ours
            if hidden or ".tmp-" in path.name:
                found.append(str(path))
    return found
