"""What the benchmarks share: sides that take turns, what a machine is, and how a result is kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tinyldm import NoiseSchedule

RESULTS = Path(__file__).parent / "results"


def in_turns(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """The medians of the seconds that each side takes; and of the first, by that of each other.

    In each round every side runs once, and the order turns, so that whatever else the machine does
    meets all of them alike. "cpu" is the time of the processor in this process, which other
    processes disturb less than the clock on the wall. The round before the first is not counted.
    """
    names = list(sides)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(-1, rounds):
        order = names if number % 2 else names[::-1]
        for name in order:
            wait()
            wall, cpu = time.perf_counter(), time.process_time()
            sides[name]()
            wait()
            spent = (time.perf_counter() - wall, time.process_time() - cpu)
            if number >= 0:
                taken[name].append(spent)
    seconds = {name: median(wall for wall, _ in taken[name]) for name in names}
    cpu = {name: median(cpu for _, cpu in taken[name]) for name in names}
    first = names[0]
    return {
        "rounds": rounds,
        "seconds": seconds,
        "cpu seconds": cpu,
        "ratio": {name: seconds[first] / seconds[name] for name in names[1:]},
        "cpu ratio": {name: cpu[first] / cpu[name] for name in names[1:]},
    }


def wait() -> None:
    """Wait until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside of the block occupy at any moment.

    Counted where torch makes tensors, so it is the same on a busy machine as on an idle one. What a
    kernel takes for itself while it runs is not in it. On a GPU the allocator tells it instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        given = {storage._cdata for storage in storages_of((arguments, options))}
        for storage in storages_of(made):
            if storage._cdata not in given:  # else a view, of a weight for example
                self.take(storage)
        return made

    def take(self, storage: Any) -> None:
        """Count a storage until it is gone."""
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key: int, size: int) -> None:
        """A storage is gone."""
        self.known.discard(key)
        self.now -= size


def storages_of(nest: Any) -> list[Any]:
    """The memory behind all tensors in nested lists and dictionaries."""
    leaves = [leaf for leaf in tree_leaves(nest) if isinstance(leaf, torch.Tensor)]
    return [leaf.untyped_storage() for leaf in leaves]


def peak_bytes(job: Callable[[], object]) -> int:
    """The most bytes of tensors that a job has at once, beside those that are there before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return torch.cuda.max_memory_allocated() - before
    with Peak() as peak:
        job()
    return peak.most


def flops(job: Callable[[], object]) -> int:
    """The floating-point operations of a job's matrix products, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        job()
    return int(counter.get_total_flops())


def machine() -> dict[str, Any]:
    """What a result was measured on, and how busy it was with something else."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load": [round(number, 1) for number in os.getloadavg()],
        "cores": os.cpu_count(),
    }


def published_prediction(schedule: NoiseSchedule, prediction: str) -> str:
    """What diffusers' schedulers of betas call a prediction; the end where they have none."""
    known = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}
    if schedule.kind == "flow" or prediction not in known:
        sys.exit(f"of schedule {schedule.kind} and prediction {prediction}; expected a run of v")
    return known[prediction]


def arguments(text: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, which show that it runs")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds, in which the sides alternate"
    )
    parser.add_argument("--out", type=Path, help="the file of the result (default: results/NAME)")
    return parser


def keep(name: str, result: dict[str, Any], given: argparse.Namespace, text: str) -> None:
    """Write a result to its file; a quick one only if a file was asked for. Print its table, text.

    docs/benchmarks/page.py puts the tables of all files into docs/benchmarks.md.
    """
    out = given.out or (None if given.quick else RESULTS / f"{name}.json")
    result |= {"machine after": machine(), "table": text}
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"in {out}")


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
