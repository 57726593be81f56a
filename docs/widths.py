"""Trains other shapes of the toy network, to see what width and depth of each level buy.

It prints a row of a table for each. Run it from the repository:

    python docs/widths.py [--steps 400] [--data FOLDER]
"""

import argparse
import csv
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinyldm.training.start import start

from tinyldm.nn.presets import PRESETS
from tinyldm.training.trainer import Trainer

SHAPES = {
    "64-128-192": dict(channels=(64, 128, 192)),
    "64-128-192, two ResBlocks at 8x8 and 4x4": dict(channels=(64, 128, 192), blocks=(1, 2, 2)),
    "96-128-160": dict(channels=(96, 128, 160)),
    "128-128-128": dict(channels=(128, 128, 128)),
    "160-160-128": dict(channels=(160, 160, 128)),
}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=400, help="of each training (default: 400)")
parser.add_argument("--data", help="folder of the pictures (default: the toy monsters)")
options = parser.parse_args()
torch.set_num_threads(1)
toy, rows, spent, gradient = PRESETS["toy"], [], [], Trainer.gradient


def timed(trainer: Trainer) -> float:
    begun = time.process_time()
    loss = gradient(trainer)
    spent.append(time.process_time() - begun)
    return loss


Trainer.gradient = timed
for name, change in SHAPES.items():
    PRESETS["toy"] = replace(toy, **change)
    with tempfile.TemporaryDirectory() as folder:
        given = dict(
            max_steps=options.steps, lr_schedule="constant", sample_every=10**6, out=f"{folder}/run"
        )
        spent.clear()
        start(given | ({"data": options.data, "preset": "toy"} if options.data else {}))
        with open(f"{folder}/run/log.csv", newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    late = losses[-len(losses) // 4 :]
    rows.append(f"| {name} | {sum(late) / len(late):.3f} | {sum(spent) / len(spent):.2f} |")
print(
    "| network | loss of the last quarter | CPU seconds of a gradient |\n| --- | --- | --- |",
    *rows,
    sep="\n",
)
