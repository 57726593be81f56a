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
            raise ValueError(
                f"the guidance interval is two noise levels, the lower first, got {self.interval}"
            )
        if (self.interval is None) != (self.schedule is None):
            raise ValueError("interval and schedule go together")

    def __call__(self, denoiser):
        """The guided denoiser (x_t, t, condition) -> prediction, which reads t (b,) on the CPU."""

        def guided(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            if condition is None:
                raise ValueError("guidance needs a condition")
            scale = self._scale(t)
            if (scale == 1).all():
                return denoiser(x_t, t, condition)
            null = self.null.to(x_t.device, non_blocking=True).expand(len(x_t))
            if (scale == 0).all():
                return denoiser(x_t, t, null)
            both = denoiser(torch.cat([x_t, x_t]), t.repeat(2), Condition.cat([condition, null]))
            conditional, unconditional = both.to(x_t.dtype).chunk(2)
            scale = scale.to(x_t, non_blocking=True).view(-1, *[1] * (x_t.ndim - 1))
            # 2207.12598, eq. 6, with the scale of most implementations, its 1 + w
            return self._rescaled(
                unconditional + scale * (conditional - unconditional), conditional
            )

        return guided

    def _scale(self, t: Tensor) -> Tensor:
        """The scale (b,) of each sample: 1 outside of the interval (2404.07724)."""
        scale = torch.full(t.shape, float(self.scale))
        if self.interval is None:
            return scale
        edm_sigma = (-self.schedule.lambda_(t)).exp()
        return scale.where((self.interval[0] < edm_sigma) & (edm_sigma <= self.interval[1]), 1.0)

    def _rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        """2305.08891, eq. 15 and 16: the standard deviations are over all of a sample."""
        if self.rescale == 0:
            return guided
        dims = tuple(range(1, guided.ndim))
        ratio = conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return guided * (self.rescale * ratio + 1 - self.rescale)
