"""UniPC (2302.04867): DPM-Solver++ whose every step is corrected when its end has been seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tinyldm.diffusion.dpm_solver import DPMSolver, History
from tinyldm.diffusion.prediction import eps_of
from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class UniPC(DPMSolver):
    """UniP, which is the multistep DPM-Solver++, and the corrector UniC; B(h) is e^h - 1, or bh2.

    UniC takes the integral of the step before once more, with the polynomial that goes through the
    prediction at its end as well: one order more, and no call more, as that prediction is the one
    that the next step starts with. The order is the predictor's; with UniC it is one higher.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sde or self.form != "x0":
            raise ValueError("UniPC solves the ordinary equation, in x0 form")

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
        """Correct x_t, then go to x_s. Arguments: see Solver in sampler.py."""
        past: History = ()
        if history:
            before, eps_before, past = history
            x0_before = past[0][1]
            others = ((now.lambda_, x0), *past[1 : self.order_of(before, now, past[1:])])
            x = now.alpha * x0_before + now.sigma * eps_before
            x = x + self.bend(x0_before, before, now, others)  # UniC
            eps = eps_of(x0, x, now)
        x_s, _ = super().step(x, x0, eps, now=now, nxt=nxt, history=past)
        if now.alpha == 0:
            return x_s, ()  # no polynomial in lambda reaches from pure noise, where it is -inf
        return x_s, (now, eps, ((now.lambda_, x0), *past)[: self.order])  # to correct it with
