"""Distances in what a network sees: the latent perceptual loss of stage two (2411.04873)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tinyldm.diffusion.loss import Noised
from tinyldm.diffusion.prediction import to_x0_eps


class Features(Protocol):
    """What a perceptual loss needs of an autoencoder."""

    def features(self, latents: Tensor) -> list[Tensor]:
        """What the decoder sees of latents (b, c, h, w) on the way to the image."""


def feature_distance(seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """How far features are from those wanted: a scalar, 0 where they are equal.

    It is the mean squared error of each layer, in units of the mean square that is wanted there,
    averaged over the layers. With a critic's features this is the learned similarity of 1512.09300
    (VAE/GAN), with a decoder's the latent perceptual loss of 2411.04873; neither needs another
    pretrained network.
    """
    total = wanted[0].new_zeros(())
    for a, b in zip(seen, wanted, strict=True):
        error, unit = (a - b).square().mean(), b.square().mean()
        total = total + error / (unit + 1e-6)
    return total / len(wanted)


@dataclass(frozen=True)
class Perceptual:
    """The latent perceptual loss: how far an estimate of x0 is from x0 to the frozen decoder.

    vae:       the frozen autoencoder of the latents
    mean, std: (c, 1, 1) of the latents; the autoencoder's own latents are x0 * std + mean
    """

    vae: Features
    mean: Tensor
    std: Tensor

    def __call__(self, predicted: Tensor, noised: Noised, prediction: str) -> Tensor:
        """The loss of a batch, a scalar; its gradient reaches the network through predicted.

        predicted:  (b, c, h, w), what the network returned for noised.x_t
        prediction: what it means: eps, x0, v or flow
        Only samples with more signal than noise count, alpha > sigma; of the others the best
        estimate of x0 is a blur. The loss is a mean over the batch, in which those others are 0.
        """
        level = noised.level
        clear = (level.alpha > level.sigma).flatten()  # (b,)
        if not clear.any():
            return predicted.sum() * 0  # zero, with a graph that backward can walk
        estimate, _ = to_x0_eps(predicted.float(), noised.x_t, level, prediction)
        seen = self._features(estimate[clear])
        with torch.no_grad():
            wanted = self._features(noised.x0[clear])
        return feature_distance(seen, wanted) * clear.float().mean()

    def _features(self, x0: Tensor) -> list[Tensor]:
        """What the decoder sees of normalised latents (b, c, h, w)."""
        latents = x0 * self.std.to(x0.device) + self.mean.to(x0.device)
        return self.vae.features(latents)
