"""DDIM (2010.02502): from DDPM's randomness, eta = 1, to none, eta = 0."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class DDIM:
    """The solver of first order; eta in [0, 1] scales the noise of a step."""

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"eta lies between 0 (no noise) and 1 (the noise of DDPM), got {self.eta}"
            )

    @property
    def stochastic(self) -> bool:
        """Whether a step uses noise."""
        return self.eta > 0

    def step(
        self, x, x0, eps, now: Level, nxt: Level, history=(), noise=None
    ) -> tuple[Tensor, tuple]:
        """From x_t to x_s; as every solver's step, see sampler.py."""
        return ddim_step(x0, eps, now, nxt, self.eta, noise), ()


def ddim_step(
    x0: Tensor, eps: Tensor, now: Level, nxt: Level, eta: float, noise: Tensor | None
) -> Tensor:
    """One DDIM step from t to s (2010.02502, eq. 12). x0, eps, noise: (b, ...); now, nxt: the levels at t and s."""
    if eta == 0:
        return nxt.alpha * x0 + nxt.sigma * eps
    # eq. 16, squared: eta = 1 has the variance of the posterior of DDPM
    variance = eta**2 * (nxt.sigma / now.sigma) ** 2 * (1 - now.alpha_bar / nxt.alpha_bar)
    return nxt.alpha * x0 + max(nxt.sigma**2 - variance, 0.0) ** 0.5 * eps + variance**0.5 * noise
