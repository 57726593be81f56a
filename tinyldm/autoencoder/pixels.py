"""No autoencoder: diffusion on the pixels themselves, by the same code as on latents."""

from __future__ import annotations

import torch
from torch import Tensor


class Pixels:
    """What stands where an AutoencoderKL would: the latents of an image are the image, (b, 3, h, w) in [-1, 1]."""

    factor, latent_channels, fingerprint = 1, 3, "pixels"

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def load_vae(name: str, device="cpu"):
    """The frozen autoencoder of that name on the device; "none" stands for the pixels."""
    if name == "none":
        return Pixels()
    from tinyldm.autoencoder.kl import AutoencoderKL

    vae = AutoencoderKL.load(name).requires_grad_(False)
    return vae.to(device, memory_format=torch.channels_last)  # quicker convolutions
