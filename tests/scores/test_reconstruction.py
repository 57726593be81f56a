"""Reconstructions of known error: the scores of an autoencoder, over arrays and folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.errors import InputError
from tinyldm.scores.reconstruction import folder_scores, picture_scores, to_batch, to_pictures

CONFIG = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
}


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


def test_pictures_and_batches_are_inverse():
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_pictures(to_batch(every)), every)
    assert to_batch(every).min() == -1
    assert to_batch(every).max() == 1


def test_folder_scores_reads_a_folder(tmp_path):
    expected = 20 * np.log10(255 / 8)
    pictures = noise_pictures()
    for k, picture in enumerate(pictures):
        (tmp_path / "deeper").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / ("deeper" if k % 2 else ".") / f"{k}.png")
    for score in (folder_scores(shifted(), tmp_path), picture_scores(shifted(), pictures)):
        assert score.images == 6
        assert score.mean == pytest.approx(expected)
        assert score.pooled == pytest.approx(expected)
    assert folder_scores(shifted(), tmp_path, size=12, limit=3).images == 3
    Image.fromarray(pictures[0, :15]).save(tmp_path / "odd.png")
    with pytest.raises(InputError, match=r"odd.png.*divisible by"):
        folder_scores(shifted(), tmp_path)


def test_pooled_is_not_the_mean():
    pictures = noise_pictures(2)
    vae = shifted()
    vae.decode = lambda latents: vae.seen + torch.tensor([16 / 255, 0.0])[:, None, None, None]
    score = picture_scores(vae, pictures)
    assert score.mean == float("inf")
    assert score.pooled == pytest.approx(20 * np.log10(255 / 8) + 10 * np.log10(2))


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        folder_scores(shifted(), tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"broken.png"):
        folder_scores(shifted(), tmp_path)


def test_ssim_of_what_is_kept():
    vae = shifted()
    vae.decode = lambda latents: vae.seen
    assert picture_scores(vae, noise_pictures()).ssim == 1.0
    vae.decode = lambda latents: -vae.seen
    assert picture_scores(vae, noise_pictures()).ssim < 0.1
