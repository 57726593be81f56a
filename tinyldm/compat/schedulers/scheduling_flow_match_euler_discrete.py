"""FlowMatchEulerDiscreteScheduler: a face of diffusion.ddim on the straight path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyldm.compat.config import Config, StepOutput
from tinyldm.compat.schedulers.base import Scheduler
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import CLEAN, Level, NoiseSchedule


class FlowMatchEulerDiscreteScheduler(Scheduler):
    """Euler's method on x_t = (1 - sigma) x0 + sigma eps, which is DDIM on that path.

    Networks are told T sigma, from T down; this library's own flow schedule tells them T sigma - 1.
    As published, the shift is taken twice for the last of the sigmas that lie between 1 and 1 / T.
    """

    fractional = True

    def set_up(self, given: Config) -> None:
        """The schedule of these settings, and a run that visits all of its levels."""
        self.config = given
        self._shift = given.shift
        self.schedule = NoiseSchedule("flow", given.num_train_timesteps, shift=1 / given.shift)
        self.prediction = "flow"
        self.num_inference_steps = None
        sigmas = self._shifted(np.arange(len(self), 0, -1) / len(self))
        self.sigma_max, self.sigma_min = float(sigmas[0]), float(sigmas[-1])
        self._visit_sigmas(sigmas)

    @property
    def shift(self) -> float:
        """How far sigmas are moved towards noise: alpha / sigma is divided by it."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Take another shift for the runs that follow."""
        self._shift = shift

    @property
    def sigmas(self) -> Tensor:
        """sigma of each level of a run, its end included."""
        return torch.tensor([level.sigma for level in self.levels])

    def _shifted(self, sigmas: Any) -> Any:
        """2403.03206, eq. 23."""
        return self._shift * sigmas / (1 + (self._shift - 1) * sigmas)

    def _visit_sigmas(self, sigmas: Any, device=None) -> None:
        levels = [Level(len(self) * sigma, 1 - sigma, sigma) for sigma in sigmas.tolist()]
        self._visit((*levels, CLEAN), device)

    # the arguments are in the published order, which is another one than in Scheduler
    def set_timesteps(  # type: ignore[override]
        self,
        num_inference_steps: int | None = None,
        device=None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Decide which levels a run visits: a number of them, or sigmas, to be shifted."""
        self.support(mu=(mu, None), timesteps=(timesteps, None))
        if (num_inference_steps is None) == (sigmas is None):
            raise ValueError("set_timesteps takes either num_inference_steps or sigmas")
        if num_inference_steps is not None:
            even = np.linspace(self.sigma_max, self.sigma_min, num_inference_steps)
        else:
            even = np.asarray(sigmas, dtype=np.float64)
        if (np.diff(even) >= 0).any():
            raise ValueError("the sigmas of a run must be strictly decreasing")
        self._visit_sigmas(self._shifted(even), device)
        self.num_inference_steps = len(even)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """x_t of data and noise at timesteps of the list (b,)."""
        places = [self._index(t) for t in timestep]
        shape = (-1,) + (1,) * (sample.ndim - 1)
        sigma = self.sigmas[places].to(sample).view(shape)
        return (1 - sigma) * sample + sigma * noise

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
        per_token_timesteps=None,
        return_dict=True,
    ):
        """From x_t to x_s; the four s and generator say nothing, as published."""
        self.support(per_token_timesteps=(per_token_timesteps, None))
        k = self._index(timestep)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._read(model_output, sample, now)
        x_s, _ = DDIM().step(x, x0, eps, now=now, nxt=nxt)
        out = StepOutput(x_s.to(model_output.dtype))
        return out if return_dict else out.to_tuple()
