"""DDPM (2006.11239): ancestral sampling, by the exact posterior between any two levels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class DDPM:
    """Draws x_s from q(x_s | x_t, x0). variance: 'small', right for data that is one point, or 'large', for N(0, I)."""

    variance: str = "small"
    stochastic = True

    def __post_init__(self):
        if self.variance not in ("small", "large"):
            raise ValueError(f"unknown variance {self.variance!r}, expected small or large")

    def step(
        self, x, x0, eps, now: Level, nxt: Level, history=(), noise=None
    ) -> tuple[Tensor, tuple]:
        """From x_t to x_s (2006.11239, eq. 6 and 7); no noise on the way to clean data."""
        # where timesteps are skipped, alpha_t and beta_t of the paper are those of one long step from s to t
        alpha = now.alpha_bar / nxt.alpha_bar
        beta = 1 - alpha
        mean = nxt.alpha * beta / now.sigma**2 * x0 + alpha**0.5 * (nxt.sigma / now.sigma) ** 2 * x
        if nxt.sigma == 0:
            return mean, ()
        variance = (
            beta if self.variance == "large" else beta * (nxt.sigma / now.sigma) ** 2
        )  # sec. 3.2
        return mean + variance**0.5 * noise, ()
