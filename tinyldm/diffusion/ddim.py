"""DDIM (2010.02502): from DDPM's randomness, eta = 1, to none, eta = 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class DDIM:
    """The first-order solver; eta in [0, 1] scales the noise of a step."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"eta lies between 0 (no noise) and 1 (the noise of DDPM), got {self.eta}"
            )

    @property
    def stochastic(self) -> bool:
        """Whether a step uses noise."""
        return self.eta > 0

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
        """From x_t to x_s (2010.02502, eq. 12). Arguments: see Solver in sampler.py.

        eta = 1 is q(x_s | x_t, x0) exactly: given x0, x_s and x_t are Gaussian and correlated.
        """
        if self.eta == 0:
            return nxt.alpha * x0 + nxt.sigma * eps, ()
        if noise is None:
            raise ValueError("a step of DDIM with eta > 0 needs noise")
        # eq. 16 for any alpha and sigma: of sigma_s^2, 1 - correlation^2 may be fresh noise
        fresh = self.eta**2 * (1 - now.correlation(nxt) ** 2)
        kept = 1 - fresh
        x_s = nxt.alpha * x0 + nxt.sigma * kept**0.5 * eps + nxt.sigma * fresh**0.5 * noise
        return x_s, ()
