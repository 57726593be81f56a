"""DDIMScheduler: a face of diffusion.ddim."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyldm.compat.schedulers.base import Scheduler, noise_like
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import CLEAN, Level


class DDIMScheduler(Scheduler):
    """DDIM; each step goes to the next timestep of the list.

    diffusers goes to timestep - T // n.
    """

    def _end(self) -> Level:
        """Clean data, or the first level of training (set_alpha_to_one=False)."""
        return CLEAN if self.config.set_alpha_to_one else self._first_level()

    @property
    def final_alpha_cumprod(self) -> Tensor:
        """alpha_bar where a run ends."""
        return torch.tensor(self._end().alpha ** 2)

    def step(
        self,
        model_output,
        timestep,
        sample,
        eta=0.0,
        use_clipped_model_output=False,
        generator=None,
        variance_noise=None,
        return_dict=True,
    ):
        """From x_t to x_s; use_clipped_model_output makes eps fit the clipped x0."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        if generator is not None and variance_noise is not None:
            raise ValueError("step takes either generator or variance_noise")
        if eta > 0 and variance_noise is None:
            variance_noise = noise_like(model_output, generator)
        return self._step(
            DDIM(float(eta)),
            model_output,
            timestep,
            sample,
            noise=variance_noise,
            return_dict=return_dict,
            fit_eps=use_clipped_model_output,
        )
