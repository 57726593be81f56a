"""DPM-Solver (2206.00927) and DPM-Solver++ (2211.01095), in their multistep forms.

A step goes from t to s, over h = lambda_s - lambda_t. In between, the prediction m, which is x0 or
eps, is extrapolated from its value m_0 at t and from m_1, m_2 of the steps before, and then
integrated exactly. The equations behind all three orders, with integrals from lambda_t to lambda_s:

    x0 form (2211.01095):
        x_s = sigma_s / sigma_t x_t + sigma_s integral e^lambda x0(lambda) dlambda
    x0 form of the SDE (2211.01095):
        x_s = sigma_s / sigma_t e^-h x_t + sigma_s sqrt(1 - e^-2h) z
              + 2 alpha_s integral e^(-2 (lambda_s - lambda)) x0(lambda) dlambda
    eps form (2206.00927, eq. 3.4):
        x_s = alpha_s / alpha_t x_t - alpha_s integral e^-lambda eps(lambda) dlambda
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1

import torch
from torch import Tensor

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import Level

History = tuple[tuple[float, Tensor], ...]  # ((lambda, m), ...) of the last steps, the newest first


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++; with form='eps' DPM-Solver.

    order:    1, 2 or 3, the number of predictions that a step uses
    sde:      solve the stochastic equation; in x0 form only, as the noise of the other form grows
              without bound
    form:     what is extrapolated, 'x0' or 'eps'
    midpoint: in second-order steps, let m in the middle of the step stand for the whole step
              (2211.01095, algorithm 2), instead of integrating a line through m; it is steadier
              where steps are long
    reach:    a step more than `reach` times as long in lambda as the one before is of first order,
              as nothing is known that far ahead. It matters on the leading and linspace grids,
              which end with such a step; math.inf is the papers' way.
    """

    order: int = 2
    sde: bool = False
    form: str = "x0"
    midpoint: bool = True
    reach: float = 2.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"DPMSolver has order 1, 2 or 3, got {self.order}")
        if self.form not in ("x0", "eps") or (self.sde and self.form == "eps"):
            raise ValueError(f"form is 'x0' or 'eps', and 'x0' with sde; got {self.form!r}")

    @property
    def stochastic(self) -> bool:
        """Whether a step uses noise."""
        return self.sde

    def step(
        self,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        now: Level,
        nxt: Level,
        history: History = (),
        noise: Tensor | None = None,
    ) -> tuple[Tensor, History]:
        """From x_t to x_s. Arguments: see Solver in sampler.py.

        With x_t = alpha_t x0 + sigma_t eps put into the equations above, the step with a constant m
        is DDIM in both forms, and for the SDE DDIM with all of its noise, which is DDPM.
        """
        m_0 = x0 if self.form == "x0" else eps
        x_s = nxt.alpha * x0 + nxt.sigma * eps
        if self.sde:
            x_s, _ = DDIM(eta=1.0).step(x, x0, eps, now=now, nxt=nxt, noise=noise)
        order = self.order_of(now, nxt, history)
        if order > 1:
            x_s = x_s + self.bend(m_0, now, nxt, history[: order - 1])
        return x_s, ((now.lambda_, m_0), *history)[: self.order - 1]

    def order_of(self, now: Level, nxt: Level, history: History) -> int:
        """The order of this step: lower at the start of a run, 1 where a step is too long."""
        order = min(self.order, len(history) + 1)
        if order == 1:
            return 1
        h = nxt.lambda_ - now.lambda_  # below 0 where an inversion goes up the grid
        h_1 = now.lambda_ - history[0][0]  # the length of the step before
        # the step to clean data, of infinite h, is of first order: it ends on x0
        return order if 0 < abs(h) < math.inf and abs(h) <= self.reach * abs(h_1) else 1

    def bend(self, m_0: Tensor, now: Level, nxt: Level, others: History) -> Tensor:
        """What a polynomial m through m_0 and other predictions adds to the step with a constant m.

        With u = (lambda - lambda_t) / h, from 0 at t to 1 at s, all integrals above are

            integral from 0 to 1 of k e^(-k (1 - u)) m(u) du

        times alpha_s, where k is h, or 2 h for the SDE; in eps form times sigma_s, and k is -h.
        """
        h = nxt.lambda_ - now.lambda_
        k, scale = (2 * h if self.sde else h), nxt.alpha
        if self.form == "eps":
            k, scale = -h, nxt.sigma
        if self.midpoint and len(others) == 1:
            # 2211.01095, algorithm 2: (1 + 1 / 2r) m_0 - 1 / 2r m_1 = m_0 + D_1 / 2 in m_0's place
            lambda_1, m_1 = others[0]
            D_1 = (m_0 - m_1) / ((now.lambda_ - lambda_1) / h)
            return -scale * (expm1(-k) / 2) * D_1
        # a prediction at pure noise, where lambda is -inf, is too far away to say anything
        points = [((lambda_ - now.lambda_) / h, m) for lambda_, m in others if lambda_ > -math.inf]
        weights = integral_weights(k, [0.0, *(u for u, _ in points)])
        added = torch.zeros_like(m_0)
        for weight, (_, m) in zip(weights[1:], points, strict=True):
            added = added + scale * weight * (m - m_0)
        return added


def integral_weights(k: float, points: Sequence[float]) -> list[float]:
    """w with sum of w_i m(u_i) = integral from 0 to 1 of k e^(-k (1 - u)) m(u) du.

    It holds for all polynomials m of a lower degree than there are points u_i.
    """
    moments = [-expm1(-k)]  # the integrals of 1, u, u^2, ..., each by parts from the one before
    for j in range(1, len(points)):
        moments.append(1 - j / k * moments[-1])
    u = torch.tensor(points, dtype=torch.float64, device="cpu")
    powers = torch.stack([u**j for j in range(len(points))])
    weights: list[float] = torch.linalg.solve(powers, u.new_tensor(moments)).tolist()
    return weights
