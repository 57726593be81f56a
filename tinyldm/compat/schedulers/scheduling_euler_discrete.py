"""EulerDiscreteScheduler: a face of diffusion.ddim."""

from __future__ import annotations

from collections.abc import Sequence

from tinyldm.compat.schedulers.sigmas import SigmaScheduler
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import CLEAN, Level


class EulerDiscreteScheduler(SigmaScheduler):
    """Euler's method for the probability-flow ODE in x0 + sigma eps, which is DDIM.

    s_churn is refused: published code adds its noise after the network has been asked, so that
    what the network says is about another sample.
    """

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device=None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Decide which levels a run visits: a number, falling timesteps, or sigmas down to 0."""
        if sigmas is None:
            super().set_timesteps(num_inference_steps, device, timesteps)
            return
        if num_inference_steps is not None or timesteps is not None:
            raise ValueError("set_timesteps takes one of num_inference_steps, timesteps or sigmas")
        if sigmas[-1] != 0:
            raise ValueError(f"sigmas end in {sigmas[-1]}, expected 0, where there is no noise")
        self._visit(self._levels_of_sigmas(list(sigmas[:-1])), device)
        self.num_inference_steps = len(sigmas) - 1

    def _end(self) -> Level:
        """Clean data, or the first level of training (final_sigmas_type="sigma_min")."""
        if self.config.final_sigmas_type == "zero":
            return CLEAN
        return self._first_level()

    def step(
        self,
        model_output,
        timestep,
        sample,
        s_churn=0.0,
        s_tmin=0.0,
        s_tmax=float("inf"),
        s_noise=1.0,
        generator=None,
        return_dict=True,
    ):
        """From a sample to the next; s_churn is to be left at 0, where the other s say nothing."""
        self.support(s_churn=(s_churn, 0.0))
        return self._sigma_step(
            DDIM(), model_output, timestep, sample, noise=None, return_dict=return_dict
        )
