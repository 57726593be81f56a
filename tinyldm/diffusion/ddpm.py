"""DDPM (2006.11239): ancestral sampling, by the exact posterior between any two levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class DDPM:
    """Draws x_s from q(x_s | x_t, x0).

    variance: 'small', which is exact for data that is a single point, or 'large', exact for N(0, I)
    """

    variance: str = "small"
    stochastic = True

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise ValueError(f"unknown variance {self.variance!r}, expected small or large")

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
        """From x_t to x_s (2006.11239, eq. 6 and 7), without noise on the way to clean data.

        Arguments: see Solver in sampler.py.
        """
        # where timesteps are skipped, the paper's alpha_t and beta_t are those of one long step
        alpha = now.alpha_bar / nxt.alpha_bar
        beta = 1 - alpha
        mean = nxt.alpha * beta / now.sigma**2 * x0 + alpha**0.5 * (nxt.sigma / now.sigma) ** 2 * x
        if nxt.sigma == 0:
            return mean, ()
        if noise is None:
            raise ValueError("a step of DDPM needs noise")
        small = beta * (nxt.sigma / now.sigma) ** 2  # eq. 7
        variance = beta if self.variance == "large" else small  # sec. 3.2
        return mean + variance**0.5 * noise, ()
