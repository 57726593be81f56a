"""Noise schedules and time grids: how much noise x_t = alpha_t x0 + sigma_t eps holds at each t."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

BETAS = {
    "linear": (1e-4, 0.02),
    "scaled_linear": (0.00085, 0.012),
}  # 2006.11239, sec. 4; 2112.10752, its code
KINDS = (*BETAS, "cosine")
SPACINGS = ("trailing", "leading", "linspace", "karras")


@dataclass(frozen=True)
class Level:
    """One noise level: floats while sampling, tensors (b, ...) while training.

    t counts from 0, the least noise of the schedule; clean data is t = -1, alpha = 1, sigma = 0
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor

    @property
    def alpha_bar(self) -> float | Tensor:
        """alpha^2, the cumulative product of 2006.11239."""
        return self.alpha**2

    @property
    def lambda_(self) -> float:
        """Half of the log-SNR, log(alpha / sigma): inf for clean data, -inf for pure noise. Floats only."""
        if self.alpha == 0 or self.sigma == 0:
            return math.inf if self.sigma == 0 else -math.inf
        return math.log(self.alpha / self.sigma)

    @staticmethod
    def of_sigma(t: float, edm_sigma: float) -> Level:
        """The level whose sigma / alpha, the noise level of 2206.00364, is edm_sigma."""
        alpha = 1 / math.hypot(1, edm_sigma)
        return Level(t, alpha, edm_sigma * alpha)

    def like(self, x: Tensor) -> Level:
        """The level of tensors (b,) in float32, shaped and placed so that it multiplies x (b, ...)."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        alpha, sigma = (
            c.to(x.device, torch.float32, non_blocking=True).view(shape)
            for c in (self.alpha, self.sigma)
        )
        return Level(self.t, alpha, sigma)


CLEAN = Level(-1.0, 1.0, 0.0)
Grid = tuple[Level, ...]  # the levels that sampling visits, noise falling from one to the next


@dataclass(frozen=True)
class NoiseSchedule:
    """T training noise levels; a value: equal schedules have equal fields. Tables are float64, on the CPU.

    kind:       'cosine' (2102.09672, eq. 17), 'linear' betas (2006.11239, sec. 4), or 'scaled_linear', linear in the
                root of beta (2112.10752)
    beta_start, beta_end: ends of the linear kinds; None takes the published ones
    zero_snr:   rescale so that the last level is pure noise (2305.08891, algorithm 1)
    shift:      factor of alpha / sigma at every level; below 1 for latents of many channels (2301.11093, eq. 4)
    """

    kind: str = "cosine"
    timesteps: int = 1000
    beta_start: float | None = None
    beta_end: float | None = None
    zero_snr: bool = False
    shift: float = 1.0

    def __post_init__(self):
        if not self.shift > 0:
            raise ValueError(f"shift is a factor above 0, got {self.shift}")
        if self.kind not in KINDS:
            raise ValueError(f"unknown schedule {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.kind not in BETAS and (self.beta_start, self.beta_end) != (None, None):
            raise ValueError(
                f"beta_start and beta_end belong to the linear schedules, not to {self.kind!r}"
            )
        for name, published in zip(("beta_start", "beta_end"), BETAS.get(self.kind, ())):
            if getattr(self, name) is None:
                object.__setattr__(self, name, published)
        if self.timesteps < 2 or not bool(((self._betas > 0) & (self._betas < 1)).all()):
            raise ValueError(
                f"a schedule has at least 2 timesteps, and betas between 0 and 1, both excluded: {self}"
            )
        if self.alpha_bar[-1] > 0.01:
            kept = f"the last of the {self.timesteps} levels keeps {self.alpha_bar[-1].sqrt():.0%} of the signal"
            warnings.warn(
                f"{kept}, but sampling starts from pure noise; use zero_snr or larger betas",
                stacklevel=3,
            )

    def to_dict(self) -> dict:
        """The fields, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> NoiseSchedule:
        """The inverse of to_dict; an unknown key is a ValueError."""
        if unknown := values.keys() - {f.name for f in fields(NoiseSchedule)}:
            raise ValueError(f"unknown keys in a noise schedule: {', '.join(sorted(unknown))}")
        return NoiseSchedule(**values)

    @cached_property
    def _betas(self) -> Tensor:
        if self.kind == "cosine":  # 2102.09672, eq. 17, and the clipping below it
            u = torch.linspace(0, 1, self.timesteps + 1, dtype=torch.float64)
            f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
            return (1 - f[1:] / f[:-1]).clamp(max=0.999)
        power = 2 if self.kind == "scaled_linear" else 1
        start, end = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        return torch.linspace(start, end, self.timesteps, dtype=torch.float64) ** power

    @cached_property
    def alpha_bar(self) -> Tensor:
        """(T,) float64: the cumulative product of 1 - beta (2006.11239, eq. 4)."""
        alpha_bar = (1 - self._betas).cumprod(0)
        if (
            self.zero_snr
        ):  # 2305.08891, algorithm 1: shift the last alpha to 0, scale the first back
            alpha = alpha_bar.sqrt()
            alpha_bar = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
        return self.shift**2 * alpha_bar / (self.shift**2 * alpha_bar + 1 - alpha_bar)

    @cached_property
    def _lambdas(self) -> Tensor:
        return 0.5 * (self.alpha_bar.log() - torch.log1p(-self.alpha_bar))

    def lambda_(self, t) -> Tensor:
        """log(alpha_t / sigma_t) in float64 for t in [0, T-1]; linear between whole timesteps, as in 2206.00927."""
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        if t.numel() and not 0 <= t.min() <= t.max() <= self.timesteps - 1:
            raise ValueError(
                f"timesteps lie within [0, {self.timesteps - 1}], got {t.min():g} to {t.max():g}"
            )
        k = t.floor().long().clamp(max=self.timesteps - 2)
        low, high = self._lambdas[k], self._lambdas[k + 1]
        # down to pure noise, alpha / sigma itself is linear
        return torch.where(high.isinf(), low + torch.log1p(k - t), low + (t - k) * (high - low))

    def t_of_lambda(self, lambda_) -> Tensor:
        """The inverse of lambda_, cut to [0, T-1]."""
        lambda_ = torch.as_tensor(lambda_, dtype=torch.float64)
        k = torch.searchsorted(-self._lambdas, -lambda_).clamp(1, self.timesteps - 1) - 1
        low, high = self._lambdas[k], self._lambdas[k + 1]
        fraction = torch.where(
            high.isinf(), -torch.expm1(lambda_ - low), (lambda_ - low) / (high - low)
        )
        return k + fraction.clamp(0, 1)

    def level(self, t) -> Level:
        """The level at t: of floats for a number, of float64 tensors (b,) for a tensor (b,)."""
        lambda_ = self.lambda_(t)
        alpha, sigma = (2 * lambda_).sigmoid().sqrt(), (-2 * lambda_).sigmoid().sqrt()
        return (
            Level(t, alpha, sigma)
            if isinstance(t, Tensor)
            else Level(float(t), alpha.item(), sigma.item())
        )

    def levels(self, timesteps: Sequence[float]) -> Grid:
        """The grid of these timesteps, which must fall strictly, and of clean data at its end."""
        if any(s >= t for t, s in itertools.pairwise(timesteps)):
            raise ValueError("the timesteps of a grid must be strictly decreasing")
        all_at_once = self.level(torch.tensor(timesteps, dtype=torch.float64))
        return (*map(Level, *(part.tolist() for part in vars(all_at_once).values())), CLEAN)

    def grid(self, steps: int, spacing: str = "trailing") -> Grid:
        """steps distinct levels, noise falling, and then clean data; ValueError unless 1 <= steps <= T.

        The spacings are those of 2305.08891, table 2, for any number of steps; 'karras' is 2206.00364, eq. 5
        """
        n, T = steps, self.timesteps
        if spacing not in SPACINGS:
            raise ValueError(f"unknown spacing {spacing!r}, expected one of {', '.join(SPACINGS)}")
        if not 1 <= n <= T:
            raise ValueError(f"sampling takes between 1 and {T} steps, got {n}")
        if spacing == "trailing":  # starts at T - 1, where training saw the most noise
            return self.levels([round(i * T / n) - 1 for i in range(n, 0, -1)])
        if spacing == "leading":
            return self.levels([i * (T // n) for i in reversed(range(n))])
        if spacing == "linspace":
            return self.levels([T - 1 - round(i * (T - 1) / max(n - 1, 1)) for i in range(n)])
        if self.zero_snr:
            raise ValueError(
                "spacing 'karras' needs a finite largest sigma, but zero_snr ends in pure noise"
            )
        most, least = ((-self._lambdas[k]).exp().item() ** (1 / 7) for k in (-1, 0))
        sigmas = [(most + i / max(n - 1, 1) * (least - most)) ** 7 for i in range(n)]
        t = self.t_of_lambda([-math.log(s) for s in sigmas])
        return (*map(Level.of_sigma, t.tolist(), sigmas), CLEAN)
