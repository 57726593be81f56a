"""Classifier-free guidance: a denoiser made of a denoiser, so that no solver ever hears of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, eq=False)
class Guidance:
    """Guidance(...)(denoiser) is the guided denoiser: null + scale (conditional - null).

    scale:    1 is the conditional model, 0 the null one; either takes one row of the network for a sample, others two
    null:     the null condition, one row
    rescale:  how far the guided prediction gets back the spread of the conditional one, 0 to 1 (2305.08891, sec. 3.4)
    interval: noise levels sigma / alpha within which to guide (2404.07724); elsewhere the model is the conditional
              one and the null half is not computed. It needs the schedule.
    """

    scale: float
    null: Condition
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    schedule: NoiseSchedule | None = None

    def __post_init__(self):
        if len(self.null) != 1:
            raise ValueError(f"the null condition has one row, got {len(self.null)}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale lies between 0 and 1, got {self.rescale}")
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise ValueError(f"the guidance interval is two noise levels, the lower first, got {self.interval}")
        if (self.interval is None) != (self.schedule is None):
            raise ValueError("interval and schedule go together")

    def __call__(self, denoiser):
        """The guided denoiser (x_t, t, condition) -> prediction; t (b,) is read on the CPU."""

        def guided(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            if condition is None:
                raise ValueError("guidance needs a condition")
            b, inside = len(x_t), self._inside(t)
            if self.scale == 1 or not inside.any():
                return denoiser(x_t, t, condition)
            null = self.null.to(x_t.device, non_blocking=True).expand(b)
            if self.scale == 0 and inside.all():
                return denoiser(x_t, t, null)
            both = denoiser(torch.cat([x_t, x_t]), t.repeat(2), Condition.cat([condition, null]))
            conditional, unconditional = both.to(x_t.dtype).chunk(2)
            # 2207.12598, eq. 6, with the scale of most implementations, its 1 + w
            mixed = self._rescaled(unconditional + self.scale * (conditional - unconditional), conditional)
            return mixed if inside.all() else torch.where(_column(inside, mixed), mixed, conditional)

        return guided

    def _inside(self, t: Tensor) -> Tensor:
        """Which samples (b,) are guided, from t on the CPU."""
        if self.interval is None:
            return torch.ones(len(t), dtype=torch.bool)
        edm_sigma = (-self.schedule.lambda_(t)).exp()
        return (self.interval[0] < edm_sigma) & (edm_sigma <= self.interval[1])  # half-open, as in 2404.07724

    def _rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        """2305.08891, eq. 15 and 16: the standard deviations are over all of a sample."""
        if self.rescale == 0:
            return guided
        ratio = conditional.flatten(1).std(1) / guided.flatten(1).std(1)  # (b,)
        return guided * _column(self.rescale * ratio + 1 - self.rescale, guided)


def _column(values: Tensor, x: Tensor) -> Tensor:
    """values (b,) where x (b, ...) is, shaped to go with it."""
    return values.to(x.device, non_blocking=True).view(-1, *[1] * (x.ndim - 1))
