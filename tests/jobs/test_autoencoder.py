"""PSNR against its definition and its known values; a short training; the files it leaves."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.errors import InputError
from tinyldm.frozen.vae import AutoencoderConfig, AutoencoderKL
from tinyldm.jobs.autoencoder import (
    augmented,
    monster_pictures,
    picture_psnr,
    psnr,
    reconstruct,
    reconstruction_psnr,
    to_batch,
    to_pictures,
    train_autoencoder,
)
from tinyldm.jobs.cli import dispatch

CONFIG = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 1, "mid_block_add_attention": False}


class Shifted(AutoencoderKL):
    """Reconstructs everything 8 steps of 255 too bright: a PSNR that is known."""

    def decode(self, latents):
        return self.seen + 16 / 255

    def encode(self, images):
        self.seen = images
        return super().encode(images)


def shifted():
    torch.manual_seed(0)
    return Shifted(AutoencoderConfig(**CONFIG)).eval()


def noise_pictures(n=6, size=16):
    return np.random.default_rng(0).integers(0, 240, (n, size, size, 3), dtype=np.uint8)


def test_psnr_of_known_errors():
    a = torch.zeros(2, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), -0.02)])
    torch.testing.assert_close(psnr(a, b), torch.tensor([20.0, 40.0], dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(psnr(b, a, span=0.2), psnr(a, b) - 20, rtol=1e-6, atol=1e-6)
    assert psnr(a, a).isinf().all()


def test_pictures_and_batches_are_inverse():
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_pictures(to_batch(every)), every)
    assert to_batch(every).min() == -1 and to_batch(every).max() == 1


def test_reconstruction_psnr_reads_a_folder(tmp_path):
    expected = 20 * np.log10(255 / 8)
    pictures = noise_pictures()
    for k, picture in enumerate(pictures):
        (tmp_path / "deeper").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / ("deeper" if k % 2 else ".") / f"{k}.png")
    for score in (reconstruction_psnr(shifted(), tmp_path), picture_psnr(shifted(), pictures)):
        assert score.images == 6
        assert score.mean == pytest.approx(expected) and score.pooled == pytest.approx(expected)
    assert reconstruction_psnr(shifted(), tmp_path, size=8, limit=3).images == 3
    Image.fromarray(pictures[0, :15]).save(tmp_path / "odd.png")
    with pytest.raises(InputError, match="odd.png.*divisible by"):
        reconstruction_psnr(shifted(), tmp_path)


def test_pooled_is_not_the_mean():
    pictures = noise_pictures(2)
    vae = shifted()
    vae.decode = lambda latents: vae.seen + torch.tensor([16 / 255, 0.0])[:, None, None, None]
    score = picture_psnr(vae, pictures)
    assert score.mean == float("inf") and score.pooled == pytest.approx(20 * np.log10(255 / 8) + 10 * np.log10(2))


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        reconstruction_psnr(shifted(), tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(InputError, match="broken.png"):
        reconstruction_psnr(shifted(), tmp_path)


def test_augmentation_keeps_the_range_and_is_repeatable():
    batch = to_batch(noise_pictures(5))
    once, again = (augmented(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again) and once.shape == batch.shape
    assert once.min() >= -1 and once.max() <= 1 and not torch.equal(once, batch)


def test_training_improves_and_is_repeatable(tmp_path):
    rng = np.random.default_rng(0)
    pictures = np.broadcast_to(rng.integers(0, 255, (24, 1, 1, 3), dtype=np.uint8), (24, 16, 16, 3)).copy()
    options = {"held_out": {"flat": pictures[:8]}, "batch_size": 8, "save_every": 20, "warmup": 5, "lr": 3e-3}
    vae = train_autoencoder(AutoencoderConfig(**CONFIG), pictures, 80, tmp_path / "a", **options)
    with open(tmp_path / "a" / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20", "40", "60", "80"]
    assert float(rows[-1]["flat_mean"]) > float(rows[0]["flat_mean"]) + 1
    loaded = AutoencoderKL.load(tmp_path / "a")
    assert loaded.fingerprint == vae.fingerprint
    assert picture_psnr(loaded, pictures[:8]).mean == pytest.approx(float(rows[-1]["flat_mean"]), abs=0.01)
    with Image.open(tmp_path / "a" / "reconstructions.png") as grid:
        assert grid.size == (8 * 16, 2 * 16)
    assert not torch.equal(reconstruct(vae, pictures, noise=0.5), reconstruct(vae, pictures))
    again = train_autoencoder(AutoencoderConfig(**CONFIG), pictures, 80, tmp_path / "b", **options)
    assert again.fingerprint == vae.fingerprint


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    for wrong, message in (["--steps", "0"], "expected at least 1"), (["--steps", "1"], "not empty"):
        assert dispatch(COMMANDS, ["toy", "vae", "--out", str(tmp_path), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_the_tiny_vae_keeps_monsters_that_it_has_never_seen():
    vae = AutoencoderKL.load("tiny").requires_grad_(False)
    pictures = monster_pictures(64, "fresh", known=False)
    assert picture_psnr(vae, pictures).mean >= 27
    assert picture_psnr(vae, pictures, noise=0.1).mean > picture_psnr(vae, pictures).mean - 1  # a sampler errs a little
