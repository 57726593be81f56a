"""The autoencoder that a run names; or none, for diffusion on the pixels themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tinyldm.autoencoder.kl import AutoencoderKL, Posterior


class Pixels:
    """Stands in for an AutoencoderKL: the latents are the image, (b, 3, h, w) in [-1, 1]."""

    factor = 1
    latent_channels = 3
    fingerprint = "pixels"

    def encode(self, images: Tensor) -> Posterior:
        """The images, of which nothing is uncertain."""
        from tinyldm.autoencoder.kl import Posterior

        return Posterior(images, torch.zeros_like(images))

    def decode(self, latents: Tensor) -> Tensor:
        """The latents, unchanged."""
        return latents


def load_vae(name: str, device: torch.device | str = "cpu") -> AutoencoderKL | Pixels:
    """The frozen autoencoder of that name on the device; "none" stands for the pixels."""
    if name == "none":
        return Pixels()
    from tinyldm.autoencoder.kl import AutoencoderKL

    vae = AutoencoderKL.load(name).requires_grad_(False).to(device)
    # Convolutions are quicker in this layout. torch's type hints do not know the argument.
    return vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
