"""UniPCMultistepScheduler: a face of diffusion.unipc."""

from __future__ import annotations

import math
from dataclasses import replace

from tinyldm.compat.config import Config, StepOutput
from tinyldm.compat.schedulers.log_snr import LogSNRScheduler
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.unipc import UniPC


class UniPCMultistepScheduler(LogSNRScheduler):
    """UniPC with B(h) = e^h - 1, "bh2"; the order falls at the end with lower_order_final.

    A step first corrects the sample that it is given, with the order that the step before had, and
    then predicts the next one with its own.
    """

    def set_up(self, given: Config) -> None:
        """The schedule of these settings; solver_type midpoint, heun and logrho mean bh2."""
        super().set_up(given)
        self.predictor = DPMSolver(self.config.solver_order, reach=math.inf)
        self.corrector = UniPC(self.config.solver_order, reach=math.inf)

    def step(self, model_output, timestep, sample, return_dict=True):
        """From x_t to x_s by the last predictions of this run."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        k, history = self._resume(timestep, sample)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._observed(model_output, sample, now)
        past = history[2] if history else ()
        if history and k - 1 not in self.config.disable_corrector:
            corrector = replace(self.corrector, order=self._order(k - 1))
            # what the corrector leaves is eps at t, which says what x_t it has come to
            _, left = corrector.step(x, x0, eps, now=now, nxt=nxt, history=history)
            eps = left[1]
        predictor = replace(self.predictor, order=self._order(k))
        x_s, _ = predictor.step(x, x0, eps, now=now, nxt=nxt, history=past)
        x_s = x_s.to(sample.dtype)
        predictions = ((now.lambda_, x0), *past)[: self.config.solver_order]
        self._leave(x_s, k + 1, (now, eps, predictions))
        out = StepOutput(x_s)
        return out if return_dict else out.to_tuple()

    def _order(self, k: int) -> int:
        """The order of step k, however many predictions there are."""
        order = self.config.solver_order
        left = len(self.levels) - 1 - k
        return min(order, left) if self.config.lower_order_final else order
