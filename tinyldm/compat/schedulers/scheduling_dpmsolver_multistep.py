"""DPMSolverMultistepScheduler: a face of diffusion.dpm_solver."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from tinyldm.compat.config import Config, StepOutput
from tinyldm.compat.schedulers.base import noise_like
from tinyldm.compat.schedulers.log_snr import LogSNRScheduler
from tinyldm.diffusion.dpm_solver import DPMSolver, History
from tinyldm.diffusion.schedule import Level


class DPMSolverMultistepScheduler(LogSNRScheduler):
    """DPM-Solver and DPM-Solver++; what a step leaves for the next one travels with prev_sample.

    So runs may take turns, and a script that changes prev_sample in between goes on with what the
    last step left. Third order is that of the published code, which counts the second difference by
    half; DPMSolver(order=3) counts all of it, and so does the stochastic one here, for which
    diffusers has a wrong sign.
    """

    def set_up(self, given: Config) -> None:
        """The solver of these settings."""
        super().set_up(given)
        c = self.config
        if c.lambda_min_clipped > -math.inf and c.timestep_spacing == "trailing":
            raise ValueError(
                "DPMSolverMultistepScheduler: not supported: lambda_min_clipped with trailing "
                "timesteps"
            )
        self.solver = DPMSolver(
            c.solver_order,
            sde=c.algorithm_type.startswith("sde"),
            form="x0" if "++" in c.algorithm_type else "eps",
            midpoint=c.solver_type == "midpoint",
            reach=math.inf,
        )

    def _spacing(self) -> str | None:
        return super()._spacing() or ("logsnr" if self.config.use_lu_lambdas else None)

    def step(
        self, model_output, timestep, sample, generator=None, variance_noise=None, return_dict=True
    ):
        """From x_t to x_s by the last predictions of this run."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        k, history = self._resume(timestep, sample)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._observed(model_output, sample, now)
        if self.solver.sde:
            variance_noise = (
                noise_like(x, generator) if variance_noise is None else variance_noise.to(x)
            )
        elif variance_noise is not None:
            raise ValueError(
                "variance_noise: not supported where algorithm_type is "
                f"{self.config.algorithm_type}"
            )
        solver = replace(self.solver, order=self._order(k, now, nxt))
        x_s, left = solver.step(x, x0, eps, now=now, nxt=nxt, history=history, noise=variance_noise)
        if solver.order == 3 and len(history) == 2 and not solver.sde:
            tangent = _tangent(now.lambda_, left[0][1], history)
            straight = replace(solver, order=2, midpoint=False)
            without_curvature, _ = straight.step(x, x0, eps, now=now, nxt=nxt, history=tangent)
            x_s = (x_s + without_curvature) / 2
        x_s = x_s.to(sample.dtype)
        self._leave(x_s, k + 1, left)
        out = StepOutput(x_s)
        return out if return_dict else out.to_tuple()

    def _order(self, k: int, now: Level, nxt: Level) -> int:
        """The order of step k: it falls at the end of runs of fewer than 15 steps.

        lower_order_final asks for that, and euler_at_final for a last step of first order.
        """
        c, n = self.config, len(self.levels) - 1
        short = c.lower_order_final and n < 15
        if nxt.lambda_ == now.lambda_:
            return 1
        if k == n - 1 and (short or c.euler_at_final):
            return 1
        if k == n - 2 and short:
            return min(c.solver_order, 2)
        return c.solver_order


def _tangent(lambda_t: float, m: Tensor, history: History) -> History:
    """A history of one, with which second order follows the parabola's tangent at t.

    So the step is the one of third order without its curvature.
    """
    (lambda_1, m_1), (lambda_2, m_2) = history
    d1 = (m - m_1) / (lambda_t - lambda_1)
    d2 = (m_1 - m_2) / (lambda_1 - lambda_2)
    slope = d1 + (lambda_t - lambda_1) / (lambda_t - lambda_2) * (d1 - d2)
    return ((lambda_1, m - (lambda_t - lambda_1) * slope),)
