"""Heun's method in the variables of EDM (2206.00364, algorithm 1), which looks twice a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tinyldm.diffusion.sampler import Again
from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class Heun:
    """DDIM, each of whose steps is done again with what is seen at its end.

    With k = sigma / alpha the flow is d(x / alpha) / dk = eps. DDIM is Euler's method for it, which
    takes eps to be constant; Heun's takes the mean of eps at the two ends of the step.

    longest: a step of h above this stays Euler's. Else a difference between the two x0 would count
             (e^h - 1) / 2 times, without bound on the way from pure noise or to clean data.
    """

    longest: float = 2.0
    stochastic = False

    def step(
        self,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        now: Level,
        nxt: Level,
        history: tuple[Any, ...] = (),
        noise: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """From x_t to DDIM's x_s, and how to go again. Arguments: see Solver in sampler.py."""

        def corrected(x0_s: Tensor, eps_s: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
            mean = (eps + eps_s) / 2
            # alpha_s (x_t / alpha_t + (k_s - k_t) mean), with x_t = alpha_t x0 + sigma_t eps put in
            bend = nxt.alpha * now.sigma / now.alpha * (eps - mean)
            return nxt.alpha * x0 + nxt.sigma * mean + bend, ()

        x_s = nxt.alpha * x0 + nxt.sigma * eps
        return x_s, Again(corrected) if nxt.lambda_ - now.lambda_ <= self.longest else ()
