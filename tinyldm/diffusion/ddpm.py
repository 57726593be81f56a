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
        """From x_t to x_s (2006.11239, eq. 6 and 7, for any alpha and sigma and any two levels).

        Without noise on the way to clean data. Arguments: see Solver in sampler.py.
        """
        # a Gaussian x_s given a correlated one, x_t: its mean moves by the correlation, and its
        # variance keeps 1 - correlation^2
        rho = now.correlation(nxt)
        mean = nxt.alpha * (1 - rho**2) * x0 + rho * nxt.sigma / now.sigma * x
        if nxt.sigma == 0:
            return mean, ()
        if noise is None:
            raise ValueError("a step of DDPM needs noise")
        variance = nxt.sigma**2 * (1 - rho**2)  # eq. 7
        if self.variance == "large":  # sec. 3.2: that of q(x_s | x_t) where x0 ~ N(0, I)
            total_s, total_t = nxt.alpha**2 + nxt.sigma**2, now.alpha**2 + now.sigma**2
            variance *= (now.sigma / nxt.sigma) ** 2 * total_s / total_t
        return mean + variance**0.5 * noise, ()
