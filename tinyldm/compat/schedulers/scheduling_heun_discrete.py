"""HeunDiscreteScheduler: a face of diffusion.heun."""

from __future__ import annotations

import math

from tinyldm.compat.config import StepOutput
from tinyldm.compat.schedulers.multistep import MultistepScheduler
from tinyldm.compat.schedulers.sigmas import SigmaScheduler
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.prediction import eps_of
from tinyldm.diffusion.schedule import Grid


class HeunDiscreteScheduler(SigmaScheduler, MultistepScheduler):
    """Euler's step, and the same step again with the mean of what is seen at its two ends.

    So each timestep but the first is listed twice: at the end of a step, and at the start of the
    next. The last step, to clean data, is Euler's.
    """

    order = 2

    def _visit(self, grid: Grid, device=None) -> None:
        first, *others, end = grid
        twice = [level for level in others for _ in range(2)]
        super()._visit((first, *twice, end), device)

    def _index(self, timestep) -> int:
        """The position of a timestep in the list; the last one, where a step starts."""
        super()._index(timestep)
        return self._places[float(timestep)][-1]

    def step(self, model_output, timestep, sample, return_dict=True):
        """From a sample to the next, or to that sample again, corrected."""
        k, start = self._resume(timestep, sample)
        at = self.levels[k]
        x, x0, eps = self._read(model_output, sample.to(model_output) * at.alpha, at)
        if self.config.clip_sample:
            x0 = x0.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
            eps = eps_of(x0, x, at)
        if k % 2 == 0:  # the start of a step
            nxt = self.levels[k + 1]
            x_s, left = Heun(longest=math.inf).step(x, x0, eps, now=at, nxt=nxt)
        else:
            nxt = at
            x_s, left = start.step(x0, eps)
        prev_sample = (x_s / nxt.alpha).to(sample.dtype)
        self._leave(prev_sample, k + 1, left)
        out = StepOutput(prev_sample, x0)
        return out if return_dict else out.to_tuple()
