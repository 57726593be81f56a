"""What the width and depth of each level buy: trains the toy network in several shapes.

Run from the repository: python docs/widths.py [--steps 400] [--data FOLDER]
Without --data it learns the toy monsters. It prints a row of a table for each shape.
"""

import argparse
import csv
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinyldm.nn.presets import PRESETS
from tinyldm.training.trainer import Trainer
from train import train

SHAPES = {
    "64-128-192": {"channels": (64, 128, 192)},
    "64-128-192, two ResBlocks at 8x8 and 4x4": {"channels": (64, 128, 192), "blocks": (1, 2, 2)},
    "96-128-160": {"channels": (96, 128, 160)},
    "128-128-128": {"channels": (128, 128, 128)},
    "160-160-128": {"channels": (160, 160, 128)},
}
HEAD = """\
| network | loss of the last quarter | CPU seconds of a gradient |
| --- | --- | --- |"""


def measure(change: dict, steps: int, data: str | None) -> tuple[float, float]:
    """The mean loss of the last quarter of a training, and the mean CPU time of a gradient."""
    spent = []
    gradient = Trainer.gradient

    def timed(trainer: Trainer) -> float:
        begun = time.process_time()
        loss = gradient(trainer)
        spent.append(time.process_time() - begun)
        return loss

    shape = replace(PRESETS["toy"], **change)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(PRESETS, toy=shape),
        patch.object(Trainer, "gradient", timed),
    ):
        options = {"max_steps": steps, "lr_schedule": "constant", "sample_every": 10**6}
        if data is not None:
            options |= {"data": data, "preset": "toy"}
        train({**options, "out": f"{folder}/run"})
        with open(f"{folder}/run/log.csv", newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    late = losses[-len(losses) // 4 :]
    return sum(late) / len(late), sum(spent) / len(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="of each training (default: 400)")
    parser.add_argument("--data", help="folder of the pictures (default: the toy monsters)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, change in SHAPES.items():
        loss, seconds = measure(change, options.steps, options.data)
        rows.append(f"| {name} | {loss:.3f} | {seconds:.2f} |")
    print(HEAD, *rows, sep="\n")


if __name__ == "__main__":
    main()
