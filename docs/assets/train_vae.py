"""The autoencoder that ships: the pictures that it is trained on, and how."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pictures as procedural

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.stage_one.training import train_autoencoder
from tinyldm.toy.monsters import ACTIONS, draw, monsters

# the shape of the autoencoder that ships: a quarter of the image's sides, little work at full resolution
TINY = {
    "block_out_channels": (16, 32, 96),
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
    "latent_channels": 12,
}
MONSTERS = 0.5  # their share of the pictures that it learns from


def monster_pictures(count: int, seed: str, known: bool = True) -> np.ndarray:
    """Toy monsters in random actions, uint8 (count, 64, 64, 3); known: those of the training captions, else others."""
    kinds, randoms = monsters()[0 if known else 1], [Random(f"{seed}-{k}") for k in range(count)]
    return np.stack(
        [np.asarray(draw(r.choice(kinds), r.choice(list(ACTIONS)), r)) for r in randoms]
    )


def train_tiny(
    out: str | Path, steps: int = 5000, seed: int = 0, count: int = 24_000
) -> AutoencoderKL:
    """Train the autoencoder that ships: on count pictures, monsters and procedural ones; see docs/vae.md."""
    few = round(MONSTERS * count)
    many = procedural.pictures(count - few, seed=seed, progress=True)
    images = np.concatenate([many, monster_pictures(few, f"vae {seed}")])
    held_out = {
        "monsters": monster_pictures(192, "held out", known=False),
        "pictures": procedural.pictures(192, seed=seed + 10**6),
    }
    config = AutoencoderConfig(**TINY)
    vae = train_autoencoder(
        config, images, steps, out, held_out, batch_size=16, lr=1.5e-3, kl=1e-5, seed=seed
    )
    vae.half().save_pretrained(out)  # half the size to ship; load gives float32
    return AutoencoderKL.load(out)
