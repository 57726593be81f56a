"""What torch's two memory layouts cost a training step of an autoencoder, in turns in one process.

Run from the repository: python docs/layouts.py [--threads 1]
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.stage_one.training import Recipe, StageOne

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--threads", type=int, default=1)
torch.set_num_threads(parser.parse_args().threads)
config = AutoencoderConfig(
    block_out_channels=(16, 32, 96),
    layers_per_block=1,
    norm_num_groups=1,
    mid_block_add_attention=False,
    latent_channels=12,
)
images = torch.randint(256, (256, 64, 64, 3), dtype=torch.uint8)
layouts, spent = {"plain": torch.contiguous_format, "channels_last": torch.channels_last}, {}
stages = {
    name: StageOne(AutoencoderKL(config), images, Recipe(1000, batch_size=16)) for name in layouts
}
for turn in range(6):
    for name, stage in stages.items():
        stage.model.to(memory_format=layouts[name])
        begun = time.perf_counter()
        for _ in range(8):
            stage.advance()
        if turn:  # the first warms up
            spent.setdefault(name, []).append(time.perf_counter() - begun)
print(
    f"channels_last: {min(spent['channels_last']) / min(spent['plain']):.2f} of the plain layout's time"
)
