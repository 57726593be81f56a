"""DDPMScheduler: a face of diffusion.ddpm."""

from __future__ import annotations

from tinyldm.compat.schedulers.base import Scheduler, noise_like
from tinyldm.diffusion.ddpm import DDPM


class DDPMScheduler(Scheduler):
    """Ancestral sampling, and the noise of training."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        """From x_t to x_s, s the next timestep of the list.

        The last step adds no noise, wherever it starts.
        """
        # drawn even where it is not used, as scripts count on the numbers that follow
        noise = noise_like(model_output, generator) if timestep > 0 else None
        solver = DDPM("large" if self.config.variance_type == "fixed_large" else "small")
        return self._step(
            solver, model_output, timestep, sample, noise=noise, return_dict=return_dict
        )
