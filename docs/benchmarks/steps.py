"""The time of a training step against batch, resolution, width and tokens, with its FLOPs.

    python docs/benchmarks/steps.py [--quick]

The share is that of the rate at which the machine multiplies two large matrices in the precision of
the step, measured in the same rounds: what a network that did nothing else could reach.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rounds import arguments, flops, in_turns, keep, machine, peak_bytes, table
from training_step import Latents, step, trainer_of

from tinyldm.device import pick_device, runs_bfloat16
from tinyldm.nn.config import UNetConfig
from tinyldm.training.presets import PRESETS

START = {"network": "toy", "batch": 8, "size": 16, "tokens": 16}
TRIALS = {
    "batch": [{"batch": n} for n in (1, 4, 8, 16, 32)],
    "resolution": [{"size": n} for n in (8, 16, 32)],
    "width": [{"network": name} for name in ("half toy", "toy", "double toy")],
    "tokens": [{"tokens": n} for n in (1, 16, 77, 154)],
    "published": [
        {"network": name, "batch": 1, "size": 32, "tokens": 77} for name in ("base", "large")
    ],
}
SIDE = 2048  # of the matrices that set the pace


def network_of(name):
    """A preset, or the toy network at half or double its widths."""
    factors = {"half toy": 0.5, "double toy": 2}
    if name not in factors:
        return PRESETS[name]
    widths = tuple(int(width * factors[name]) for width in PRESETS["toy"].channels)
    return replace(PRESETS["toy"], channels=widths)


def products(side, device, dtype):
    """A product of two large matrices, to be called."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b


def measure(trial, rounds, device, side=SIDE):
    """Time, FLOPs and peak memory of a step, and the time of a product of matrices."""
    cache = Latents((4, trial["size"], trial["size"]), trial["tokens"], 128)
    config = trial["network"]
    config = config if isinstance(config, UNetConfig) else network_of(config)
    precision = {"precision": "auto", "batch_size": trial["batch"], "size": (64, 64)}
    trainer = trainer_of(cache, config, Path("nowhere"), device, **precision)
    bfloat16 = runs_bfloat16(device, "auto")
    product = products(side, device, torch.bfloat16 if bfloat16 else torch.float32)
    facts = {
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "flop": flops(lambda: step(trainer)),
        "peak bytes": peak_bytes(lambda: step(trainer)),
        "precision": "bfloat16" if bfloat16 else "float32",
    }
    taken = in_turns({"step": lambda: step(trainer), "product": product}, rounds)
    facts["seconds"], facts["product seconds"] = (
        taken["seconds"]["step"],
        taken["seconds"]["product"],
    )
    facts["cpu seconds"] = taken["cpu seconds"]["step"]
    cpu_rate = facts["flop"] / facts["cpu seconds"]
    facts["share"] = cpu_rate / (2 * side**3 / taken["cpu seconds"]["product"])
    return facts


def write(rows):
    """The rows as a table."""
    lines = []
    for row in rows:
        lines.append(
            [
                row["against"],
                row["network"],
                row["batch"],
                f"{row['size']}x{row['size']}",
                row["tokens"],
                f"{row['flop'] / 1e9:,.1f}",
                f"{row['flop'] / row['batch'] / 1e9:,.1f}",
                f"{row['peak bytes'] / 1e6:,.0f}",
                f"{row['seconds']:.3f}",
                f"{row['share']:.2f}",
            ]
        )
    head = ["against", "network", "batch", "latents", "tokens", "GFLOP", "a picture"]
    return table([*head, "MB", "seconds", "share"], lines)


def main(argv=None):
    given = arguments(__doc__).parse_args(argv)
    trials, side = TRIALS, SIDE
    if given.quick:
        small = UNetConfig(
            channels=(16, 32), attention=("none", "cross"), blocks=1, heads=2, groups=8
        )
        trials = {"batch": [{"network": small, "batch": n, "size": 8} for n in (1, 2)]}
        given.rounds, side = 1, 256
    device, rows = pick_device(), []
    for against, changes in trials.items():
        for change in changes:
            trial = START | change
            row = {"against": against, **trial, **measure(trial, given.rounds, device, side)}
            row["network"] = row["network"] if isinstance(row["network"], str) else "quick"
            rows.append(row)
            print(write([row]).splitlines()[-1], flush=True)
    keep("steps", {"machine": machine(), "rows": rows}, given, write(rows))


if __name__ == "__main__":
    sys.exit(main())
