"""Autoguidance: leading a network away from a weaker one (2406.02507).

The weaker one D_0 is a smaller network, or an earlier checkpoint of the same one, D_1. It makes the
mistakes of D_1, only worse, and so

    D_0 + w (D_1 - D_0),  w > 1,

has fewer of them. Unlike the null condition it leads to no other prompt, and costs no variety.
diffusion/guidance.py computes it, alone or with the null condition; here is which networks can
guide which, and what is done where they predict different things.
"""

from __future__ import annotations

from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.prediction import check_prediction, target, to_x0_eps
from tinyldm.diffusion.sampler import Denoiser
from tinyldm.diffusion.schedule import NoiseSchedule


def predicting(denoiser: Denoiser, made: str, wanted: str, schedule: NoiseSchedule) -> Denoiser:
    """A denoiser that predicts `wanted`, of one on the same schedule that predicts `made`.

    eps, x0, v and the velocity of the straight path follow from each other and x_t exactly, and
    linearly: guidance is the same whichever of them it adds up.
    """
    check_prediction(wanted, schedule)
    if made == wanted:
        return denoiser

    def converted(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        level = schedule.level(t).like(x_t)
        predicted = denoiser(x_t, t, condition).to(x_t.dtype)
        x0, eps = to_x0_eps(predicted, x_t, level, made)
        return target(x0, eps, level, wanted)

    return converted
