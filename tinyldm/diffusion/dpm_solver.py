"""DPM-Solver (2206.00927) and DPM-Solver++ (2211.01095), multistep: an exact integral of an extrapolated prediction.

With u going from 0 at t to 1 at s, and h = lambda_s - lambda_t, the sampling equation has the solution

    x0 form (2211.01095, eq. 8):    x_s = sigma_s / sigma_t x_t + alpha_s I(h, x0)
    its SDE (2211.01095):           x_s = sigma_s / sigma_t e^-h x_t + alpha_s I(2 h, x0) + sigma_s sqrt(1 - e^-2h) z
    eps form (2206.00927, eq. 3.4): x_s = alpha_s / alpha_t x_t + sigma_s I(-h, eps)

    I(k, m) = integral from 0 to 1 of k exp(-k (1 - u)) m(u) du

Taking m constant gives DDIM, with eta = 1 for the SDE. Higher orders put a parabola or a line through the last
predictions, so that I is a sum of the moments of u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from tinyldm.diffusion.ddim import ddim_step
from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++; form='eps' is DPM-Solver.

    order:    1, 2 or 3, the number of predictions that a step uses
    sde:      solve the stochastic equation; in x0 form only, as the other's noise grows without bound
    form:     what is extrapolated, 'x0' or 'eps'
    midpoint: in steps of second order, m in the middle of the step stands for the whole step (2211.01095, algorithm 2)
              instead of the integral over the line; steadier where steps are long
    reach:    a step over reach times as long in lambda as the one before is of first order: nothing is known so far
              ahead. Matters on leading and linspace grids, which end with such a step; math.inf is the papers' way.
    """

    order: int = 2
    sde: bool = False
    form: str = "x0"
    midpoint: bool = True
    reach: float = 2.0

    def __post_init__(self):
        if self.order not in (1, 2, 3):
            raise ValueError(f"DPMSolver has order 1, 2 or 3, got {self.order}")
        if self.form not in ("x0", "eps") or (self.sde and self.form == "eps"):
            raise ValueError(f"form is 'x0' or 'eps', and 'x0' with sde; got {self.form!r}")

    @property
    def stochastic(self) -> bool:
        """Whether a step uses noise."""
        return self.sde

    def step(
        self, x, x0, eps, now: Level, nxt: Level, history=(), noise=None
    ) -> tuple[Tensor, tuple]:
        """From x_t to x_s. history: the last levels and predictions ((lambda, m), ...), the newest first."""
        m = x0 if self.form == "x0" else eps
        x_s = ddim_step(x0, eps, now, nxt, float(self.sde), noise)
        order, h = min(self.order, len(history) + 1), nxt.lambda_ - now.lambda_
        # the step to clean data, of infinite h, is of first order: it ends on x0
        if order > 1 and 0 < h < math.inf and h <= self.reach * (now.lambda_ - history[0][0]):
            k, scale = (-h, nxt.sigma) if self.form == "eps" else (h * (1 + self.sde), nxt.alpha)
            m0, m1, m2 = moments(k)
            d1 = (m - history[0][1]) / (
                (now.lambda_ - history[0][0]) / h
            )  # divided differences over u
            if order == 2:
                x_s = x_s + scale * (m0 / 2 if self.midpoint else m1) * d1
            else:
                (lambda_1, p1), (lambda_2, p2) = history[:2]
                r1, r2 = (now.lambda_ - lambda_1) / h, (lambda_1 - lambda_2) / h
                d2 = (d1 - (p1 - p2) / r2) / (r1 + r2)
                x_s = x_s + scale * (
                    m1 * (d1 + r1 * d2) + m2 * d2
                )  # m(u) = m + d1 u + d2 u (u + r1)
        return x_s, ((now.lambda_, m), *history)[: self.order - 1]


def moments(k: float) -> tuple[float, float, float]:
    """The integrals from 0 to 1 of k exp(-k (1 - u)) u^j, for j = 0, 1, 2: each by parts from the one before."""
    m0 = -math.expm1(-k)
    m1 = 1 - m0 / k
    return m0, m1, 1 - 2 * m1 / k
