"""Heun's method in the variables of EDM (2206.00364, algorithm 1), which calls twice a step."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class Heun(DDIM):
    """DDIM, each of whose steps is done again by sample() with what is seen at its end.

    With k = sigma / alpha the flow is d(x / alpha) / dk = eps. DDIM is Euler's method for it, which
    takes eps to be constant; Heun's takes the mean of eps at the two ends of the step.

    longest: a step of h above this stays Euler's. Else a difference between the two x0 would count
             (e^h - 1) / 2 times, without bound on the way from pure noise or to clean data.
    """

    eta: float = field(default=0.0, init=False)
    longest: float = 2.0

    def corrects(self, now: Level, nxt: Level) -> bool:
        """Whether the step from t to s is to be done again."""
        return nxt.lambda_ - now.lambda_ <= self.longest

    def corrected(self, x0: Tensor, eps: Tensor, eps_s: Tensor, now: Level, nxt: Level) -> Tensor:
        """x_s from x0 and eps at t, and from eps_s, which was seen at the end of DDIM's step."""
        mean = (eps + eps_s) / 2
        # alpha_s (x_t / alpha_t + (k_s - k_t) mean), with x_t = alpha_t x0 + sigma_t eps put in
        bend = nxt.alpha * now.sigma / now.alpha * (eps - mean)
        return nxt.alpha * x0 + nxt.sigma * mean + bend
