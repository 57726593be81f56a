"""A short training of an autoencoder, and the files it leaves."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.cli import dispatch
from tinyldm.scores.reconstruction import picture_scores, reconstruct, to_batch
from tinyldm.stage_one.pictures import augmented
from tinyldm.stage_one.recipe import Recipe
from tinyldm.stage_one.training import train_autoencoder

ASSETS = Path(__file__).parents[2] / "docs" / "assets"
CONFIG = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
}


def noise_pictures(n=6, size=16):
    return np.random.default_rng(0).integers(0, 240, (n, size, size, 3), dtype=np.uint8)


def test_augmentation_keeps_the_range_and_is_repeatable():
    batch = to_batch(noise_pictures(5))
    once, again = (augmented(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == batch.shape
    assert once.min() >= -1
    assert once.max() <= 1
    assert not torch.equal(once, batch)


def test_training_improves_and_is_repeatable(tmp_path):
    rng = np.random.default_rng(0)
    pictures = np.broadcast_to(
        rng.integers(0, 255, (24, 1, 1, 3), dtype=np.uint8), (24, 16, 16, 3)
    ).copy()
    recipe = Recipe(80, batch_size=8, warmup=5, lr=3e-3)
    held_out = {"flat": pictures[:8]}

    def trained(out):
        config = AutoencoderConfig(**CONFIG)
        return train_autoencoder(config, pictures, recipe, out, held_out=held_out, save_every=20)

    vae = trained(tmp_path / "a")
    with open(tmp_path / "a" / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20", "40", "60", "80"]
    assert float(rows[-1]["flat_mean"]) > float(rows[0]["flat_mean"]) + 1
    loaded = AutoencoderKL.load(tmp_path / "a")
    assert loaded.fingerprint == vae.fingerprint
    assert picture_scores(loaded, pictures[:8]).mean == pytest.approx(
        float(rows[-1]["flat_mean"]), abs=0.01
    )
    with Image.open(tmp_path / "a" / "reconstructions.png") as grid:
        assert grid.size == (8 * 16, 2 * 16)
    assert not torch.equal(reconstruct(vae, pictures, noise=0.5), reconstruct(vae, pictures))
    assert trained(tmp_path / "b").fingerprint == vae.fingerprint


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    for wrong, message in (
        (["--steps", "0"], "--steps 0: expected a whole number from 1"),
        (["--steps", "1"], "not empty"),
    ):
        assert dispatch(COMMANDS, ["toy", "vae", "--out", str(tmp_path), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_the_tiny_vae_keeps_monsters_that_it_has_never_seen(monkeypatch):
    monkeypatch.syspath_prepend(ASSETS)
    from train_vae import monster_pictures

    vae = AutoencoderKL.load("tiny").requires_grad_(False)
    pictures = monster_pictures(64, "fresh", known=False)
    assert picture_scores(vae, pictures).mean >= 27
    assert picture_scores(vae, pictures, noise=0.1).mean >= 27  # also where a sampler errs a little
