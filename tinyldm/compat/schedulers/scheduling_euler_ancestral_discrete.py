"""EulerAncestralDiscreteScheduler: a face of diffusion.ddim with eta = 1."""

from __future__ import annotations

from tinyldm.compat.schedulers.base import noise_like
from tinyldm.compat.schedulers.sigmas import SigmaScheduler
from tinyldm.diffusion.ddim import DDIM


class EulerAncestralDiscreteScheduler(SigmaScheduler):
    """Euler to sigma_down, then noise of sigma_up: with sigma_up^2 + sigma_down^2 = sigma_s^2.

    sigma_up^2 = sigma_s^2 (sigma_t^2 - sigma_s^2) / sigma_t^2 is the variance of DDPM's posterior,
    so this is DDIM with eta = 1.
    """

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        """From a sample to the next."""
        noise = noise_like(model_output, generator).to(sample)
        return self._sigma_step(
            DDIM(1.0), model_output, timestep, sample, noise=noise, return_dict=return_dict
        )
