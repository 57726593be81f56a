"""Makes the tiny VAE that ships in the package: the pictures that it is trained on, and how.

    python docs/assets/train_vae.py --out FOLDER

is `python -m tinyldm toy vae`; both work from a clone of the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pictures as procedural

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.stage_one.recipe import Recipe
from tinyldm.stage_one.training import train_autoencoder
from tinyldm.toy.monsters import ACTIONS, draw, monsters

# its latents have a quarter of the image's sides; little work is done at full resolution
TINY = {
    "block_out_channels": (16, 32, 96),
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
    "latent_channels": 12,
}
MONSTERS = 0.5  # their share of the pictures that it learns from
HELD_OUT = 192  # pictures of each kind that it is measured on


def monster_pictures(count: int, seed: str, known: bool = True) -> np.ndarray:
    """Toy monsters in random actions, uint8 (count, 64, 64, 3).

    known: the monsters of the training captions; otherwise those of the test captions
    """
    of_training, of_test = monsters()
    kinds = of_training if known else of_test
    drawn = []
    for k in range(count):
        r = Random(f"{seed}-{k}")
        monster = r.choice(kinds)
        action = r.choice(list(ACTIONS))
        drawn.append(np.asarray(draw(monster, action, r)))
    return np.stack(drawn)


def train_tiny(
    out: str | Path, steps: int = 5000, seed: int = 0, count: int = 24_000
) -> AutoencoderKL:
    """Train the autoencoder that ships, on `count` pictures: monsters and procedural ones.

    See docs/vae.md. Its measures on pictures held out are in out/scores.csv.
    """
    few = round(MONSTERS * count)
    pictures = procedural.pictures(count - few, seed=seed, progress=True)
    images = np.concatenate([pictures, monster_pictures(few, f"vae {seed}")])
    held_out = {
        "monsters": monster_pictures(HELD_OUT, "held out", known=False),
        "pictures": procedural.pictures(HELD_OUT, seed=seed + 10**6),
    }
    config = AutoencoderConfig(**TINY)
    recipe = Recipe(steps, batch_size=16, lr=1.5e-3, kl=1e-5, seed=seed)
    vae = train_autoencoder(config, images, recipe, out, held_out=held_out)
    vae.half().save_pretrained(out)  # half the size to ship; load gives float32
    return AutoencoderKL.load(out)


if __name__ == "__main__":
    from tinyldm.__main__ import COMMANDS
    from tinyldm.cli import dispatch
    from tinyldm.signals import leave

    leave(dispatch(COMMANDS, ["toy", "vae", *sys.argv[1:]]))
