"""Measure what torch's two memory layouts cost a training step of an autoencoder.

    python docs/layouts.py [--threads 1]

Both are trained in turns, in one process.
"""

import argparse
import time

import torch

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.commands.toy import script
from tinyldm.stage_one.recipe import Recipe
from tinyldm.stage_one.training import StageOne

TURNS, STEPS = 6, 8  # turns of each layout, the first to warm up, and steps in a turn
LAYOUTS = {"plain": torch.contiguous_format, "channels_last": torch.channels_last}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--threads", type=int, default=1)
torch.set_num_threads(parser.parse_args().threads)

config = AutoencoderConfig(**script("train_vae").TINY)
images = torch.randint(256, (256, 64, 64, 3), dtype=torch.uint8)
recipe = Recipe(steps=1000, batch_size=16)
stages = {name: StageOne(AutoencoderKL(config), images, recipe) for name in LAYOUTS}
seconds = {name: [] for name in LAYOUTS}
for turn in range(TURNS):
    for name, stage in stages.items():
        stage.model.to(memory_format=LAYOUTS[name])
        begun = time.perf_counter()
        for _ in range(STEPS):
            stage.advance()
        if turn > 0:
            seconds[name].append(time.perf_counter() - begun)
share = min(seconds["channels_last"]) / min(seconds["plain"])
print(f"channels_last: {share:.2f} of the plain layout's time")
