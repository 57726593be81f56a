"""Trains other shapes of the toy network, to see what width and depth of each level buy.

It prints a row of a table for each. Run it from the repository:

    python docs/widths.py [--steps 400] [--data FOLDER]
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinyldm.training.log import read_log
from tinyldm.training.presets import PRESETS
from train import train

SHAPES = {
    "64-128-192": {"channels": (64, 128, 192)},
    "64-128-192, two ResBlocks at 8x8 and 4x4": {"channels": (64, 128, 192), "blocks": (1, 2, 2)},
    "96-128-160": {"channels": (96, 128, 160)},
    "128-128-128": {"channels": (128, 128, 128)},
    "160-160-128": {"channels": (160, 160, 128)},
}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=400, help="of each training (default: 400)")
parser.add_argument("--data", help="folder of the pictures (default: the toy monsters)")
options = parser.parse_args()
torch.set_num_threads(1)

print("| shape | seconds a step | loss of the last 50 steps |\n| --- | --- | --- |")
for name, shape in SHAPES.items():
    PRESETS[name] = replace(PRESETS["toy"], **shape)
    with tempfile.TemporaryDirectory() as folder:
        given = {"preset": name, "out": f"{folder}/run", "max_steps": options.steps}
        if options.data:
            given |= {"data": options.data, "vae": "tiny", "text_encoder": "tiny"}
        train({**given, "batch_size": 32, "sample_every": 10**9, "save_every": 10**9})
        rows = read_log(Path(folder, "run", "log.csv"))
    seconds = median(32 / float(row[4]) for row in rows)
    print(
        f"| {name} | {seconds:.2f} | {mean(float(row[1]) for row in rows[-50:]):.4f} |", flush=True
    )
