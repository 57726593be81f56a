"""Guidance: a denoiser made of a denoiser, so that no solver ever hears of it.

Here are classifier-free guidance and autoguidance; methods/composition.py has several conditions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.schedule import NoiseSchedule

if TYPE_CHECKING:
    from tinyldm.diffusion.sampler import Denoiser


@dataclass(frozen=True, eq=False)
class Guidance:
    """Guidance(scale, null)(denoiser) is the guided denoiser, null + scale (conditional - null).

    scale:    1 is the conditional model and 0 the null one, and either costs one row of the network
              for a sample; any other scale costs two
    null:     the null condition, one row
    rescale:  0 to 1, how far to bring the spread of the guided prediction back to that of the
              conditional one (2305.08891, sec. 3.4)
    interval: the noise levels sigma / alpha between which to guide (2404.07724). Elsewhere the
              conditional model is used and nothing else is computed. It needs the schedule.
    guide:    a weaker denoiser that predicts the same, to lead away from (2406.02507):
              weak + guide_scale (conditional - weak), at the cost of one of its rows. Both kinds
              of guidance add up: conditional + (scale - 1) (conditional - null)
              + (guide_scale - 1) (conditional - weak). So each scale means what it means alone.
    """

    scale: float
    null: Condition
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    schedule: NoiseSchedule | None = None
    guide: Denoiser | None = None
    guide_scale: float = 1.0

    def __post_init__(self) -> None:
        if len(self.null) != 1:
            raise ValueError(f"the null condition has one row, got {len(self.null)}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale lies between 0 and 1, got {self.rescale}")
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise ValueError(
                f"the guidance interval is two noise levels, the lower first, got {self.interval}"
            )
        if (self.interval is None) != (self.schedule is None):
            raise ValueError("interval and schedule go together")
        if self.guide is None and self.guide_scale != 1:
            raise ValueError(f"a guide scale of {self.guide_scale} needs a guide")

    def __call__(self, denoiser: Denoiser) -> Denoiser:
        """The guided denoiser. It looks at t (b,), which should therefore be on the CPU."""

        def guided(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            if condition is None:
                raise ValueError("guidance needs a condition")
            scale, guide_scale = self.scale_at(t, self.scale), self.scale_at(t, self.guide_scale)
            null = self.null.to(x_t.device, non_blocking=True).expand(len(x_t))
            ones = (1,) * (x_t.ndim - 1)
            if (scale == 1).all():
                conditional = prediction = denoiser(x_t, t, condition)
            elif (scale == 0).all() and (guide_scale == 1).all():
                return denoiser(x_t, t, null)
            else:
                conditional, unconditional = predictions_of(denoiser, x_t, t, [condition, null])
                scale = scale.to(x_t, non_blocking=True).view(-1, *ones)  # (b, 1, ..., 1)
                # 2207.12598, eq. 6; the scale of most implementations, as here, is its 1 + w
                prediction = unconditional + scale * (conditional - unconditional)
            if self.guide is not None and not (guide_scale == 1).all():
                weak = self.guide(x_t, t, condition).to(x_t.dtype)
                beyond = (guide_scale - 1).to(x_t, non_blocking=True).view(-1, *ones)
                prediction = prediction + beyond * (conditional - weak)
            return self.rescaled(prediction, conditional)

        return guided

    def scale_at(self, t: Tensor, scale: float) -> Tensor:
        """A scale (b,) for each sample: 1 outside of the interval (2404.07724)."""
        scales = torch.full(t.shape, float(scale))
        if self.interval is None or self.schedule is None:
            return scales
        low, high = self.interval
        edm_sigma = (-self.schedule.lambda_(t)).exp()
        return scales.where((low < edm_sigma) & (edm_sigma <= high), 1.0)

    def rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        """2305.08891, eq. 15 and 16; each standard deviation is over the whole of a sample."""
        if self.rescale == 0 or guided is conditional:
            return guided
        dims = tuple(range(1, guided.ndim))
        ratio = conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return guided * (self.rescale * ratio + 1 - self.rescale)


def predictions_of(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, conditions: list[Condition]
) -> list[Tensor]:
    """The predictions (b, ...) under each of n conditions of b rows, by one call for n b rows."""
    n = len(conditions)
    predicted = denoiser(torch.cat([x_t] * n), t.repeat(n), Condition.cat(conditions))
    return list(predicted.to(x_t.dtype).chunk(n))
