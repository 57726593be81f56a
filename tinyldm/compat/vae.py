"""The autoencoder with diffusers' calls."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from tinyldm.compat.config import Config, ConfiguredModel
from tinyldm.frozen import vae


class LatentDistribution(vae.Posterior):
    """The Gaussian q(z | image)."""

    def mode(self) -> Tensor:
        """Its mean."""
        return self.mean

    @property
    def var(self) -> Tensor:
        """Its variance."""
        return self.std**2

    @property
    def logvar(self) -> Tensor:
        """The logarithm of its variance."""
        return 2 * self.std.log()

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) of each image: (b,)."""
        return super().kl().sum(dim=[1, 2, 3])

    def nll(self, sample: Tensor, dims: list[int] = [1, 2, 3]) -> Tensor:
        """-log q(sample), summed over dims."""
        return 0.5 * (math.log(2 * math.pi) + self.logvar + (sample - self.mean) ** 2 / self.var).sum(dim=dims)


class EncoderOutput(NamedTuple):
    """What encode returns."""

    latent_dist: LatentDistribution


class DecoderOutput(NamedTuple):
    """What decode and forward return."""

    sample: Tensor


class AutoencoderKL(ConfiguredModel, vae.AutoencoderKL):
    """The autoencoder; it encodes in float32 even with half-precision weights, which overflow otherwise."""

    DEFAULTS = dict(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(64,), layers_per_block=1, act_fn="silu", latent_channels=4, norm_num_groups=32,
        sample_size=32, scaling_factor=0.18215, shift_factor=None, latents_mean=None, latents_std=None,
        force_upcast=True, use_quant_conv=True, use_post_quant_conv=True, mid_block_add_attention=True)  # fmt: skip
    NOTES = ("sample_size", "force_upcast", "shift_factor", "latents_mean", "latents_std")  # for scripts to read

    def __init__(self, *args, **settings):
        given = self.settings(args, settings)
        try:
            native = vae.AutoencoderConfig(**{k: v for k, v in given.items() if k not in self.NOTES})
        except ValueError as error:
            raise ValueError(f"AutoencoderKL: not supported: {error}") from None
        super().__init__(native)
        self.config = Config(given, given.defaulted, native)

    def encode(self, x: Tensor, return_dict: bool = True):
        """images (b, 3, h, w) in [-1, 1] -> .latent_dist, with the dtype of the images."""
        weights = {name: w.float() for name, w in self.named_parameters()} if self.dtype != torch.float32 else {}
        with torch.autocast(x.device.type, enabled=False):
            q = functional_call(_Encode(self), {f"vae.{name}": w for name, w in weights.items()}, (x.float(),))
        out = EncoderOutput(LatentDistribution(q.mean.to(x.dtype), q.std.to(x.dtype)))
        return out if return_dict else tuple(out)

    def decode(self, z: Tensor, return_dict: bool = True, generator=None):
        """latents (b, c, h/f, w/f) -> .sample, images (b, 3, h, w)."""
        out = DecoderOutput(super().decode(z).to(z.dtype))
        return out if return_dict else tuple(out)

    def forward(self, sample: Tensor, sample_posterior: bool = False, return_dict: bool = True, generator=None):
        """The reconstruction of images, from the mean or from a sample of the posterior."""
        q = self.encode(sample).latent_dist
        return self.decode(q.sample(generator) if sample_posterior else q.mode(), return_dict)


class _Encode(torch.nn.Module):
    """posterior as a forward, for functional_call."""

    def __init__(self, model: AutoencoderKL):
        super().__init__()
        self.vae = model

    def forward(self, x: Tensor) -> vae.Posterior:
        return self.vae.posterior(x)
