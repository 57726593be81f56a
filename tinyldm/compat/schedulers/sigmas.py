"""Schedulers whose samples are x_t / alpha_t = x0 + sigma eps, as in 2206.00364.

Their sigma is sigma_t / alpha_t here. In these coordinates an Euler step of the probability-flow
ODE is DDIM, and an ancestral step is DDIM with eta = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tinyldm.compat.config import StepOutput
from tinyldm.compat.schedulers.base import Scheduler
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import CLEAN, Grid, Level


class SigmaScheduler(Scheduler):
    """A scheduler in these coordinates; its timesteps may be fractional, its sigmas are not even.

    Between whole timesteps sigma itself is a straight line.
    """

    fractional = True

    def _set_tables(self) -> None:
        super()._set_tables()
        if self.schedule.zero_snr:
            self.alphas_cumprod[-1] = 2**-24  # as published: a largest sigma that is not infinite
        alpha_bar = self.schedule.alpha_bar.clamp(min=2**-24)
        self._edm_sigmas = ((1 - alpha_bar) / alpha_bar).sqrt().numpy()  # (T,) float64

    @property
    def sigmas(self) -> Tensor:
        """sigma of each level of a run, its end included."""
        return torch.tensor([_edm_sigma(level) for level in self.levels])

    @property
    def init_noise_sigma(self) -> Tensor:
        """The standard deviation of the noise that a run starts from."""
        largest = self.sigmas.max()
        if self.config.timestep_spacing == "leading":  # x_t has data in it as well
            return (largest**2 + 1) ** 0.5
        return largest

    def scale_model_input(self, sample: Tensor, timestep=None) -> Tensor:
        """x_t of a sample, which is what networks are trained on."""
        return sample * self.levels[self._index(timestep)].alpha

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """original_samples + sigma noise, with the sigmas of the run where it has the timesteps."""
        sigmas = []
        for t in timesteps.flatten().tolist():
            places = self._places.get(t)
            level = self.levels[places[0]] if places else self._levels([t])[0]
            sigmas.append(_edm_sigma(level))
        shape = (-1,) + (1,) * (original_samples.ndim - 1)
        return original_samples + noise * torch.tensor(sigmas).to(original_samples).view(shape)

    def _grid(self, n: int) -> Grid:
        grid = super()._grid(n)
        if not self.config.get("use_karras_sigmas", False):
            return grid
        most, least = (_edm_sigma(level) for level in (grid[0], grid[-2]))
        return self._levels_of_sigmas(karras_sigmas(most, least, n))

    def _levels(self, timesteps: Sequence[float]) -> Grid:
        """The levels of these timesteps, and clean data."""
        if any(s >= t for t, s in pairwise(timesteps)):
            raise ValueError("the timesteps of a run must be strictly decreasing")
        sigmas = np.interp(timesteps, np.arange(len(self)), self._edm_sigmas)
        return (*map(Level.of_sigma, timesteps, sigmas.tolist()), CLEAN)

    def _levels_of_sigmas(self, sigmas: Sequence[float]) -> Grid:
        """The levels of these sigmas, and clean data; t is a line in the logarithm of sigma."""
        logs = np.log(self._edm_sigmas)
        timesteps = np.interp(np.log(sigmas), logs, np.arange(len(self)))
        return (*map(Level.of_sigma, timesteps.tolist(), sigmas), CLEAN)

    def _sigma_step(
        self,
        solver: DDIM,
        model_output: Tensor,
        timestep,
        sample: Tensor,
        *,
        noise: Tensor | None,
        return_dict: bool,
    ):
        """A step of a solver of the library, between samples that are divided by alpha."""
        k = self._index(timestep)
        now, nxt = self.levels[k : k + 2]
        x_edm = sample.to(torch.promote_types(sample.dtype, torch.float32))
        x, x0, eps = self._read(model_output, x_edm * now.alpha, now)
        x_s, _ = solver.step(x, x0, eps, now=now, nxt=nxt, noise=noise)
        out = StepOutput((x_s / nxt.alpha).to(model_output.dtype), x0)
        return out if return_dict else out.to_tuple()


def karras_sigmas(most: float, least: float, n: int) -> list[float]:
    """n sigmas, evenly spaced in their seventh root (2206.00364, eq. 5)."""
    ramp = np.linspace(0, 1, n)
    roots = most ** (1 / 7) + ramp * (least ** (1 / 7) - most ** (1 / 7))
    return (roots**7).tolist()


def _edm_sigma(level: Level) -> float:
    return level.sigma / level.alpha
