"""Multistep schedulers whose steps are taken in lambda, half of the log-SNR."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from tinyldm.compat.schedule import TableSchedule
from tinyldm.compat.schedulers.base import thresholded
from tinyldm.compat.schedulers.multistep import MultistepScheduler
from tinyldm.diffusion.prediction import eps_of
from tinyldm.diffusion.schedule import CLEAN, Grid, Level


class LogSNRScheduler(MultistepScheduler):
    """What DPMSolverMultistepScheduler and UniPCMultistepScheduler share: grids, ends, x0."""

    extra = 1

    def _set_tables(self) -> None:
        if self.schedule.zero_snr:
            # as published: all but pure noise, so that the second step has a difference
            least = 1 + 1e-3 * torch.arange(len(self) - 1, -1, -1)  # the last of them is the least
            alpha_bar = self.schedule.alpha_bar.maximum(2**-24 * least)
            betas = 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
            self.schedule = TableSchedule(timesteps=len(betas), table=tuple(betas.tolist()))
        super()._set_tables()

    @property
    def sigmas(self) -> Tensor:
        """sigma / alpha of each level of a run, its end included."""
        return torch.tensor([level.sigma / level.alpha for level in self.levels])

    def _end(self) -> Level:
        """Clean data, or the first level of training (final_sigmas_type="sigma_min")."""
        if self.config.final_sigmas_type == "zero":
            return CLEAN
        return self._first_level()

    def _last_timestep(self) -> int:
        least = self.config.get("lambda_min_clipped", -math.inf)
        lambdas = self.schedule.lambda_(torch.arange(self.schedule.timesteps))
        return int((lambdas >= least).sum())

    def _spacing(self) -> str | None:
        """The name of this library's grid that is even in the noise, if a run takes one."""
        return "karras" if self.config.use_karras_sigmas else None

    def _grid(self, n: int) -> Grid:
        spacing = self._spacing()
        if spacing is None:
            return super()._grid(n)
        grid = self.schedule.grid(n, spacing)
        # networks are told whole timesteps, except for the cosine schedule: most of its noise is
        # within the last one
        if self.config.beta_schedule == "squaredcos_cap_v2":
            return grid
        return (*(replace(level, t=float(round(level.t))) for level in grid[:-1]), CLEAN)

    def _observed(
        self, model_output: Tensor, sample: Tensor, now: Level
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, x0 and eps; with thresholding eps fits the changed x0."""
        c = self.config
        x, x0, eps = self._read(model_output, sample, now)
        if c.thresholding:
            x0 = thresholded(x0, c.dynamic_thresholding_ratio, c.sample_max_value)
            eps = eps_of(x0, x, now)
        return x, x0, eps
