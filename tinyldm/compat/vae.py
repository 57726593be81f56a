"""The autoencoder with diffusers' calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from tinyldm.autoencoder import kl as vae
from tinyldm.compat.config import Config, ConfiguredModel, NamedOutput, Output

# settings that say nothing about the network; scripts read them
NOTES = ("sample_size", "force_upcast", "shift_factor", "latents_mean", "latents_std")


class LatentDistribution(vae.Posterior):
    """The Gaussian q(z | image), with diffusers' names beside mean, std and sample(generator)."""

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    @property
    def var(self) -> Tensor:
        """The variance."""
        return self.std**2

    @property
    def logvar(self) -> Tensor:
        """The logarithm of the variance."""
        return 2 * self.std.log()

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) of each image: (b,)."""
        return super().kl().sum(dim=[1, 2, 3])

    def nll(self, sample: Tensor, dims: Sequence[int] = (1, 2, 3)) -> Tensor:
        """-log q(sample | image), summed over these dimensions."""
        density = torch.distributions.Normal(self.mean, self.std)
        return -density.log_prob(sample).sum(dim=tuple(dims))


@dataclass(frozen=True, eq=False)
class EncoderOutput(NamedOutput):
    """What encode returns."""

    latent_dist: LatentDistribution


class AutoencoderKL(ConfiguredModel, vae.AutoencoderKL):
    """The autoencoder.

    It encodes in float32 even where its weights are half precision: they would overflow.
    """

    def set_up(self, given: Config) -> None:
        """The autoencoder of these settings."""
        native = self.native(given)
        vae.AutoencoderKL.__init__(self, native)
        self.config = Config(given, given.defaulted, native)

    @classmethod
    def native(cls, given: Config) -> vae.AutoencoderConfig:
        """The AutoencoderConfig that these settings mean."""
        try:
            return vae.AutoencoderConfig(**{k: v for k, v in given.items() if k not in NOTES})
        except ValueError as error:
            raise ValueError(f"{cls.__name__}: not supported: {error}") from None

    def encode(self, x: Tensor, return_dict: bool = True):
        """images (b, 3, h, w) in [-1, 1] -> .latent_dist, in the dtype of the images."""
        # functional_call leaves the network's own weights as they are
        weights = {f"vae.{name}": w.float() for name, w in self.named_parameters()}
        with torch.autocast(x.device.type, enabled=False):
            q = functional_call(_Encode(self), weights, (x.float(),))
        out = EncoderOutput(LatentDistribution(q.mean.to(x.dtype), q.std.to(x.dtype)))
        return out if return_dict else out.to_tuple()

    def decode(self, z: Tensor, return_dict: bool = True, generator=None):
        """latents (b, c, h/f, w/f) -> .sample, images (b, 3, h, w)."""
        out = Output(super().decode(z).to(z.dtype))
        return out if return_dict else out.to_tuple()

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator=None,
    ):
        """.sample, the images reconstructed from the mean or from a sample of the posterior."""
        q = self.encode(sample).latent_dist
        z = q.sample(generator) if sample_posterior else q.mean
        return self.decode(z, return_dict)


class _Encode(torch.nn.Module):
    """AutoencoderKL.posterior as a forward, which is what functional_call calls."""

    def __init__(self, model: AutoencoderKL):
        super().__init__()
        self.vae = model

    def forward(self, x: Tensor) -> vae.Posterior:
        return self.vae.posterior(x)
