"""DPM-Solver (2206.00927) and DPM-Solver++ (2211.01095), in their multistep forms.

A step goes from t to s, over h = lambda_s - lambda_t. In between, the prediction m, which is x0 or
eps, is extrapolated from its value m_0 at t and from m_1, m_2 of the steps before, and then
integrated exactly. The equations behind all three orders, with integrals from lambda_t to lambda_s:

    x0 form (2211.01095, eq. 8):
        x_s = sigma_s / sigma_t x_t + sigma_s integral e^lambda x0(lambda) dlambda
    x0 form of the SDE (2211.01095):
        x_s = sigma_s / sigma_t e^-h x_t + sigma_s sqrt(1 - e^-2h) z
              + 2 alpha_s integral e^(-2 (lambda_s - lambda)) x0(lambda) dlambda
    eps form (2206.00927, eq. 3.4):
        x_s = alpha_s / alpha_t x_t - alpha_s integral e^-lambda eps(lambda) dlambda
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import expm1

from torch import Tensor

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
        """From x_t to x_s. Arguments: see Solver in sampler.py."""
        m_0 = x0 if self.form == "x0" else eps
        x_s = self._first_order(x0, eps, now, nxt, noise=noise)
        order = self._order_of(now, nxt, history)
        if order == 2:
            x_s = x_s + self._second_order_term(m_0, now, nxt, history)
        if order == 3:
            x_s = x_s + self._third_order_term(m_0, now, nxt, history)
        return x_s, ((now.lambda_, m_0), *history)[: self.order - 1]

    def _order_of(self, now: Level, nxt: Level, history: History) -> int:
        """The order of this step: lower at the start of a run, 1 where a step is too long."""
        order = min(self.order, len(history) + 1)
        if order == 1:
            return 1
        h = nxt.lambda_ - now.lambda_
        h_1 = now.lambda_ - history[0][0]  # the length of the step before
        # the step to clean data, of infinite h, is of first order: it ends on x0
        return order if 0 < h < math.inf and h <= self.reach * h_1 else 1

    def _first_order(
        self, x0: Tensor, eps: Tensor, now: Level, nxt: Level, noise: Tensor | None
    ) -> Tensor:
        """The step with a constant m.

        x0 form:  sigma_s / sigma_t x_t - alpha_s (e^-h - 1) x0
        eps form: alpha_s / alpha_t x_t - sigma_s (e^h - 1) eps     (2206.00927, eq. 3.7)
        the SDE:  sigma_s / sigma_t e^-h x_t + alpha_s (1 - e^-2h) x0 + sigma_s sqrt(1 - e^-2h) z

        With x_t = alpha_t x0 + sigma_t eps put in, the first two become alpha_s x0 + sigma_s eps,
        which is DDIM, and the third becomes DDPM. In this form they hold for an infinite h as well.
        """
        if not self.sde:
            return nxt.alpha * x0 + nxt.sigma * eps
        if noise is None:
            raise ValueError("a step of the stochastic DPMSolver needs noise")
        # sigma_s^2 (1 - e^-2h)
        variance = (nxt.sigma / now.sigma) ** 2 * (1 - now.alpha_bar / nxt.alpha_bar)
        spread: float = variance**0.5
        left: float = max(nxt.sigma**2 - variance, 0.0) ** 0.5
        return nxt.alpha * x0 + left * eps + spread * noise

    def _second_order_term(self, m_0: Tensor, now: Level, nxt: Level, history: History) -> Tensor:
        """What second order adds: the slope of the line through m_0 and m_1.

        2211.01095, algorithm 2, has D = (1 + 1 / 2r) m_0 - 1 / 2r m_1 = m_0 + D_1 / 2 in the place
        of the first order's m_0. midpoint=False integrates the line instead of taking its middle.
        """
        lambda_1, m_1 = history[0]
        h = nxt.lambda_ - now.lambda_
        r = (now.lambda_ - lambda_1) / h
        D_1 = (m_0 - m_1) / r

        if self.form == "eps":
            if self.midpoint:
                return -nxt.sigma * (expm1(h) / 2) * D_1
            return -nxt.sigma * (expm1(h) / h - 1) * D_1
        k = 2 * h if self.sde else h
        if self.midpoint:
            return -nxt.alpha * (expm1(-k) / 2) * D_1
        return nxt.alpha * (expm1(-k) / k + 1) * D_1

    def _third_order_term(self, m_0: Tensor, now: Level, nxt: Level, history: History) -> Tensor:
        """What third order adds: slope and curvature of the parabola through m_0, m_1 and m_2.

        With u = (lambda - lambda_t) / h, m = m_0 + D_1 u + D_2 u^2. The names are those of the
        authors' code; its phi_k is h phi_k(h) of 2206.00927, appendix B. That code has phi_3 D_2,
        half of the last term, and so is of second order.
        """
        (lambda_1, m_1), (lambda_2, m_2) = history[:2]
        h = nxt.lambda_ - now.lambda_
        r_0 = (now.lambda_ - lambda_1) / h
        r_1 = (lambda_1 - lambda_2) / h
        D_10 = (m_0 - m_1) / r_0
        D_11 = (m_1 - m_2) / r_1
        D_2 = (D_10 - D_11) / (r_0 + r_1)
        D_1 = D_10 + r_0 * D_2

        if self.form == "eps":
            phi_1 = expm1(h)
            phi_2 = phi_1 / h - 1
            phi_3 = phi_2 / h - 1 / 2
            return -nxt.sigma * (phi_2 * D_1 + 2 * phi_3 * D_2)
        k = 2 * h if self.sde else h
        phi_1 = expm1(-k)
        phi_2 = phi_1 / k + 1
        phi_3 = phi_2 / k - 1 / 2
        return nxt.alpha * (phi_2 * D_1 - 2 * phi_3 * D_2)
