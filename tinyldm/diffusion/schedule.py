"""Noise schedules and time grids: how much noise x_t = alpha_t x0 + sigma_t eps holds at each t."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

BETAS = {
    "linear": (1e-4, 0.02),  # 2006.11239, sec. 4
    "scaled_linear": (0.00085, 0.012),  # the published code of 2112.10752
}
KINDS = (*BETAS, "cosine", "flow")
MOST_TIMESTEPS = 100_000  # a larger number is a slip, whose tables would fill the memory
SPACINGS = ("trailing", "leading", "linspace", "karras", "logsnr")


@dataclass(frozen=True)
class Level:
    """One noise level, in Python floats, as sampling uses it.

    t counts from 0, the least noise of the schedule. Clean data has t = -1, alpha = 1, sigma = 0.
    """

    t: float
    alpha: float
    sigma: float

    @property
    def lambda_(self) -> float:
        """log(alpha / sigma), half of the log-SNR: inf for clean data, -inf for pure noise."""
        if self.sigma == 0:
            return math.inf
        if self.alpha == 0:
            return -math.inf
        return math.log(self.alpha / self.sigma)

    def correlation(self, nxt: Level) -> float:
        """Of x_t, here, and x_s, at nxt, given x0: how much of the noise of one is in the other.

        As x_t = (alpha_t / alpha_s) x_s + fresh noise, it is alpha_t sigma_s / (alpha_s sigma_t),
        which is e^-h; 0 if x_t is pure noise or x_s clean.
        """
        return self.alpha * nxt.sigma / (nxt.alpha * self.sigma)

    @staticmethod
    def of_sigma(t: float, edm_sigma: float) -> Level:
        """The variance-preserving level whose sigma / alpha, as in 2206.00364, is edm_sigma."""
        alpha = 1 / math.hypot(1, edm_sigma)
        return Level(t, alpha, edm_sigma * alpha)


CLEAN = Level(-1.0, 1.0, 0.0)
Grid = tuple[Level, ...]  # the levels that sampling visits, noise falling from one to the next


@dataclass(frozen=True, eq=False)
class BatchLevel:
    """The noise level of each sample of a batch, in tensors, as training uses it.

    t, alpha, sigma: (b,) each; after like(x), alpha and sigma are (b, 1, ..., 1).
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    def like(self, x: Tensor) -> BatchLevel:
        """The same levels in float32, on the device of x (b, ...) and shaped to multiply it."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        alpha = self.alpha.to(x.device, torch.float32, non_blocking=True).view(shape)
        sigma = self.sigma.to(x.device, torch.float32, non_blocking=True).view(shape)
        return BatchLevel(self.t, alpha, sigma)


@dataclass(frozen=True)
class NoiseSchedule:
    """T training noise levels. Equal schedules have equal fields. Tables are float64, on the CPU.

    kind:       'cosine' (2102.09672, eq. 17), 'linear' betas (2006.11239, sec. 4),
                'scaled_linear', linear in the root of beta (2112.10752), all three of which keep
                alpha^2 + sigma^2 = 1, or 'flow', the straight path: sigma = (t + 1) / T and
                alpha = 1 - sigma, which ends in pure noise (2209.03003, 2210.02747)
    beta_start, beta_end: the ends of the linear kinds; None takes the published ones
    zero_snr:   rescale so that the last level is pure noise (2305.08891, algorithm 1)
    shift:      multiplies alpha / sigma at every level; below 1 for latents of many channels
                (2301.11093; the shift of 2403.03206, eq. 23, is its inverse)
    """

    kind: str = "cosine"
    timesteps: int = 1000
    beta_start: float | None = None
    beta_end: float | None = None
    zero_snr: bool = False
    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift <= 1e6:
            raise ValueError(f"shift is a factor above 0, got {self.shift}; it is at most 1e6")
        if self.kind not in KINDS:
            raise ValueError(f"unknown schedule {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.kind in BETAS:
            start, end = BETAS[self.kind]
            if self.beta_start is None:
                object.__setattr__(self, "beta_start", start)  # frozen: "=" is refused
            if self.beta_end is None:
                object.__setattr__(self, "beta_end", end)
        elif self.beta_start is not None or self.beta_end is not None:
            raise ValueError(
                f"beta_start and beta_end belong to the linear schedules, not to {self.kind!r}"
            )
        if self.zero_snr and self.kind == "flow":
            raise ValueError("zero_snr changes nothing: 'flow' ends in pure noise by itself")
        ends = [beta for beta in (self.beta_start, self.beta_end) if beta is not None]
        if not 2 <= self.timesteps <= MOST_TIMESTEPS or not all(0 < beta < 1 for beta in ends):
            raise ValueError(
                f"a schedule has at least 2 timesteps, at most {MOST_TIMESTEPS:,}, and betas "
                f"between 0 and 1, both excluded: {self}"
            )
        last = self.level(self.timesteps - 1).alpha
        if last > 0.1:
            warnings.warn(
                f"the last of the {self.timesteps} levels keeps {last:.0%} of the signal, "
                "but sampling starts from pure noise; use zero_snr or larger betas",
                stacklevel=3,
            )

    @cached_property
    def betas(self) -> Tensor:
        """(T,) float64: the variance that each step of the forward process adds."""
        if self.kind == "cosine":  # 2102.09672, eq. 17, and the clipping below it
            u = torch.linspace(0, 1, self.timesteps + 1, dtype=torch.float64)
            f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
            return (1 - f[1:] / f[:-1]).clamp(max=0.999)
        if self.beta_start is None or self.beta_end is None:
            raise ValueError(f"schedule {self.kind!r} has no betas and no alpha_bar")
        power = 2 if self.kind == "scaled_linear" else 1
        start = self.beta_start ** (1 / power)
        end = self.beta_end ** (1 / power)
        return torch.linspace(start, end, self.timesteps, dtype=torch.float64) ** power

    @cached_property
    def alpha_bar(self) -> Tensor:
        """(T,) float64: the cumulative product of 1 - beta (2006.11239, eq. 4)."""
        alpha_bar = (1 - self.betas).cumprod(0)
        if self.zero_snr:
            # 2305.08891, algorithm 1: shift the last alpha to 0, scale the first back
            alpha = alpha_bar.sqrt()
            alpha_bar = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
        return self.shift**2 * alpha_bar / (self.shift**2 * alpha_bar + 1 - alpha_bar)

    @property
    def ends_in_noise(self) -> bool:
        """Whether the last level is pure noise, where x_t = eps."""
        return self.zero_snr or self.kind == "flow"

    @cached_property
    def _lambdas(self) -> Tensor:
        """(T,) float64: log(alpha / sigma) at each timestep."""
        if self.kind == "flow":
            return self.lambda_(torch.arange(self.timesteps))
        return 0.5 * (self.alpha_bar.log() - torch.log1p(-self.alpha_bar))

    def lambda_(self, t: float | Tensor) -> Tensor:
        """log(alpha_t / sigma_t) in float64 for t in [0, T - 1], of any shape.

        Between whole timesteps it is a straight line, as in 2206.00927; flow needs no such thing.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        if t.numel() and not 0 <= t.min() <= t.max() <= self.timesteps - 1:
            raise ValueError(
                f"timesteps lie within [0, {self.timesteps - 1}], got {t.min():g} to {t.max():g}"
            )
        if self.kind == "flow":
            sigma = (t + 1) / self.timesteps  # without the shift
            return (self.shift * (1 - sigma) / sigma).log()
        k = t.floor().long().clamp(max=self.timesteps - 2)  # t lies between k and k + 1
        low, high = self._lambdas[k], self._lambdas[k + 1]
        # down to pure noise, alpha / sigma itself is linear
        return torch.where(high.isinf(), low + torch.log1p(k - t), low + (t - k) * (high - low))

    def t_of_lambda(self, lambda_: float | Sequence[float] | Tensor) -> Tensor:
        """The inverse of lambda_, clipped to [0, T - 1]."""
        lambda_ = torch.as_tensor(lambda_, dtype=torch.float64)
        if self.kind == "flow":
            sigma = (math.log(self.shift) - lambda_).sigmoid()  # without the shift
            return (self.timesteps * sigma - 1).clamp(0, self.timesteps - 1)
        k = torch.searchsorted(-self._lambdas, -lambda_).clamp(1, self.timesteps - 1) - 1
        low, high = self._lambdas[k], self._lambdas[k + 1]
        straight = (lambda_ - low) / (high - low)
        fraction = torch.where(high.isinf(), -torch.expm1(lambda_ - low), straight)
        return k + fraction.clamp(0, 1)

    @overload
    def level(self, t: float) -> Level: ...
    @overload
    def level(self, t: Tensor) -> BatchLevel: ...
    def level(self, t: float | Tensor) -> Level | BatchLevel:
        """The level at a number t, or the levels at each t of a tensor (b,), in float64."""
        lambda_ = self.lambda_(t)
        if self.kind == "flow":
            alpha, sigma = lambda_.sigmoid(), (-lambda_).sigmoid()
        else:
            alpha, sigma = (2 * lambda_).sigmoid().sqrt(), (-2 * lambda_).sigmoid().sqrt()
        if isinstance(t, Tensor):
            return BatchLevel(t, alpha, sigma)
        return Level(float(t), alpha.item(), sigma.item())

    def levels(self, timesteps: Sequence[float]) -> Grid:
        """The grid of these timesteps, which must fall strictly, and of clean data at its end."""
        if any(s >= t for t, s in itertools.pairwise(timesteps)):
            raise ValueError("the timesteps of a grid must be strictly decreasing")
        batch = self.level(torch.tensor(timesteps, dtype=torch.float64))
        rows = zip(batch.t.tolist(), batch.alpha.tolist(), batch.sigma.tolist(), strict=True)
        return (*(Level(t, alpha, sigma) for t, alpha, sigma in rows), CLEAN)

    def grid(self, steps: int, spacing: str = "trailing") -> Grid:
        """`steps` distinct levels, noise falling, and then clean data; 1 <= steps <= T.

        The spacings are those of 2305.08891, table 2, for any number of steps, and two whose steps
        are even in the noise, not in t: 'karras' (2206.00364, eq. 5) and 'logsnr' (2206.00927).
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
        return self.levels(self.t_of_lambda(self._even_lambdas(n, spacing)).tolist())

    def _even_lambdas(self, n: int, spacing: str) -> Tensor:
        """(n,): even in the seventh root of sigma / alpha for 'karras', in lambda for 'logsnr'.

        From pure noise, where lambda is -inf, 'logsnr' is even in log(alpha / sigma + n^-2).
        """
        first, last = self._lambdas[[-1, 0]].tolist()
        even = torch.linspace(0, 1, n, dtype=torch.float64)
        if spacing == "karras":
            if self.ends_in_noise:
                raise ValueError("'karras' needs a largest sigma, which zero_snr and 'flow' lack")
            most, least = math.exp(-first / 7), math.exp(-last / 7)
            return -7 * (most + even * (least - most)).log()
        if self.ends_in_noise:
            return (even * math.log1p(n**2 * math.exp(last))).expm1().log() - 2 * math.log(n)
        return torch.linspace(first, last, n, dtype=torch.float64)
