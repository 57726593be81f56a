"""Consistency models: from noise to data in a few calls of the network (2303.01469).

The flow of a diffusion model leads each x_t to one x0. A consistency function f(x_t, t) says at
once to which:

    f(x_t, t) = f(x_s, s) for x_t and x_s of one trajectory,    f(x0, clean) = x0

Here f is the x0 that a network's prediction stands for (`to_x0_eps`), alpha x_t - sigma v for v. So
any trained denoiser is a start for it, and f(x0, clean) = x0 holds whatever the network says.
ConsistencyLoss turns the one into the other, ConsistencySolver draws with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinyldm.diffusion.loss import Noised
from tinyldm.diffusion.prediction import check_prediction, to_x0_eps
from tinyldm.diffusion.schedule import BatchLevel, Level, NoiseSchedule

if TYPE_CHECKING:
    from tinyldm.condition import Condition
    from tinyldm.diffusion.sampler import Denoiser


@dataclass(frozen=True, eq=False)
class ConsistencyLoss:
    """How far f(x_t, t) is from f(x_s, s), where s is a step before t on the same trajectory.

    The step is long at first and becomes shorter, s -> t: Easy Consistency Tuning (2406.14548). Of
    n steps from pure noise to clean data, each is T / n timesteps long, as in the grid 'trailing',
    and n grows by a constant factor from each training step to the next. With n = 1, s is always
    clean, and the loss is that of a denoiser.

    prediction: what the networks predict: x0, v or flow
    teacher:    a frozen denoiser, guided if f is to be; x_s is where its DDIM step from x_t leads
                (consistency distillation). None: x_s = alpha_s x0 + sigma_s eps has the noise of
                x_t (consistency training), and f learns from the data alone.
    first, last: n when the training begins, and when it ends
    c:          the pseudo-Huber distance of two x0 is sqrt(d^2 + c^2) - c with d their root mean
                square difference; with d the norm, as in 2310.14189, its c is sqrt(size) times ours
    """

    schedule: NoiseSchedule
    prediction: str = "v"
    teacher: Denoiser | None = None
    first: float = 2.0
    last: float = 16.0
    c: float = 0.00054

    def __post_init__(self) -> None:
        check_prediction(self.prediction, self.schedule)
        if self.prediction == "eps":
            raise ValueError(
                "eps prediction can't become a consistency function: where a drawing begins, "
                "x_t is nearly eps, and x0 the small difference; use v, x0 or flow"
            )
        if not 1 <= self.first <= self.last <= self.schedule.timesteps:
            raise ValueError(
                f"expected 1 <= first <= last <= {self.schedule.timesteps}, "
                f"got {self.first} and {self.last}"
            )

    def __call__(
        self, denoiser: Denoiser, noised: Noised, condition: Condition | None, progress: float
    ) -> Tensor:
        """The loss (b,) float32 of each sample. progress: how much of the training is done, 0 to 1.

        The target f(x_s, s) comes from the same weights, through which no gradient flows, and from
        the same dropout as f(x_t, t) (2406.14548).
        """
        x_t, t = noised.x_t, noised.t
        s, clean = self.earlier(t, progress)
        level_s = self.levels(s, clean, x_t)
        with torch.no_grad():
            x0, eps = noised.x0, noised.eps
            if self.teacher is not None:
                seen = self.teacher(x_t, t.float(), condition)
                x0, eps = to_x0_eps(seen.float(), x_t, noised.level, self.prediction)
            x_s = level_s.alpha * x0 + level_s.sigma * eps
            on_card = [x_t.device] if x_t.device.type == "cuda" else []
            with torch.random.fork_rng(on_card):
                seen = denoiser(x_s, s.float(), condition)
            target, _ = to_x0_eps(seen.float(), x_s, level_s, self.prediction)
            target = torch.where(level_s.sigma == 0, x_s, target)
        predicted = denoiser(x_t, t.float(), condition)
        f, _ = to_x0_eps(predicted.float(), x_t, noised.level, self.prediction)
        square = (f - target).square().flatten(1).mean(1)  # (b,)
        distance = (square + self.c**2).sqrt() - self.c
        # 1 / (t - s), as in 2406.14548, in units of a whole step
        weight = self.gap(progress) / (t - torch.where(clean, -1.0, s))
        return distance * weight.to(distance, non_blocking=True)

    def gap(self, progress: float) -> float:
        """t - s in timesteps."""
        n = self.first * (self.last / self.first) ** progress
        return self.schedule.timesteps / n

    def earlier(self, t: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """s (b,) float64, at least 0, and where it is clean data instead (b,) bool."""
        s = t.double() - self.gap(progress)
        return s.clamp(min=0), s < 0

    def levels(self, s: Tensor, clean: Tensor, x: Tensor) -> BatchLevel:
        """The levels at s, or clean data, shaped to multiply x (b, ...)."""
        level = self.schedule.level(s)
        alpha, sigma = level.alpha.where(~clean, 1.0), level.sigma.where(~clean, 0.0)
        return BatchLevel(s, alpha, sigma).like(x)


@dataclass(frozen=True)
class ConsistencySolver:
    """Multistep consistency sampling (2303.01469, algorithm 1): x0, and fresh noise onto it.

    One step from pure noise to clean data is f itself.
    """

    @property
    def stochastic(self) -> bool:
        """Every step uses noise; to clean data, none of it."""
        return True

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
        """From x_t to x_s = alpha_s f(x_t, t) + sigma_s noise. Arguments: see Solver."""
        if noise is None:
            raise ValueError("a step of ConsistencySolver needs noise")
        return nxt.alpha * x0 + nxt.sigma * noise, ()
