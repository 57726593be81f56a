"""What training minimises: a denoiser's error on data to which noise has been added.

training_loss() is the whole of it. It takes three steps, which a caller who needs what lies between
them, as a perceptual term does, can take one by one:

    noised = draw_noise(x0, schedule, generator)
    predicted = denoiser(noised.x_t, noised.t.float(), condition)
    error = prediction_error(predicted, noised, prediction, schedule)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.prediction import check_prediction, target
from tinyldm.diffusion.schedule import BatchLevel, NoiseSchedule

if TYPE_CHECKING:
    from tinyldm.diffusion.sampler import Denoiser


@dataclass(frozen=True, eq=False)
class Noised:
    """Data with noise added to it, and everything that went into it.

    x0, eps, x_t: (b, ...) float32, with x_t = alpha x0 + sigma eps
    t:            (b,) timesteps, on the CPU unless the caller gave others
    level:        the levels at t, with alpha and sigma shaped to multiply x0
    """

    x0: Tensor
    eps: Tensor
    t: Tensor
    level: BatchLevel
    x_t: Tensor


def draw_noise(
    x0: Tensor,
    schedule: NoiseSchedule,
    generator: torch.Generator | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
) -> Noised:
    """Noise x0 (b, ...), in float32, at timesteps drawn uniformly from 0 to T - 1.

    generator: on the CPU; draws t first, then eps. None takes torch's own.
    t, eps:    (b,) and (b, ...), for a caller who has drawn them already
    """
    if t is None:
        t = torch.randint(schedule.timesteps, (len(x0),), generator=generator)
    if eps is None:
        eps = torch.randn(x0.shape, generator=generator).to(x0.device, non_blocking=True)
    x0, eps = x0.float(), eps.float()
    level = schedule.level(t).like(x0)
    x_t = level.alpha * x0 + level.sigma * eps  # 2006.11239, eq. 4
    return Noised(x0=x0, eps=eps, t=t, level=level, x_t=x_t)


def drop_condition(
    condition: Condition | None,
    null: Condition | None,
    cfg_drop: float,
    generator: torch.Generator | None = None,
) -> Condition | None:
    """Replace each row by the one row of null, with probability cfg_drop.

    2207.12598, algorithm 1. generator: on the CPU; None takes torch's own.
    """
    if not 0 <= cfg_drop <= 1:
        raise ValueError(f"cfg_drop is a probability, got {cfg_drop}")
    if cfg_drop == 0:
        return condition
    if condition is None or null is None:
        raise ValueError(
            "cfg_drop needs a condition to drop and a null condition to put in its place"
        )
    dropped = torch.rand(len(condition), generator=generator) < cfg_drop
    return condition.drop(null.to(condition.device), dropped)


def loss_weight(
    t: Tensor, schedule: NoiseSchedule, prediction: str, snr_gamma: float | None
) -> Tensor:
    """The weight (b,) float64 of an error at t: 1, or min-SNR's if snr_gamma is given."""
    if snr_gamma is None:
        return torch.ones(t.shape, dtype=torch.float64)
    # 2303.09556, sec. 3.4, is for errors of x0. At a given x_t, an error of 1 in x0 is one of
    # -alpha / sigma in eps, and so of `gain` in what is predicted
    level = schedule.level(t)
    ratio = level.alpha / level.sigma
    gain = target(torch.ones_like(ratio), -ratio, level, prediction)
    return (ratio**2).clamp(max=snr_gamma) / gain**2


def prediction_error(
    predicted: Tensor,
    noised: Noised,
    prediction: str,
    schedule: NoiseSchedule,
    snr_gamma: float | None = None,
) -> Tensor:
    """The weighted mean square error (b,) float32 of each sample, over everything but the batch.

    predicted:  (b, ...), what the denoiser returned for noised.x_t
    prediction: what it means: 'eps', 'x0', 'v' or 'flow'
    """
    wanted = target(noised.x0, noised.eps, noised.level, prediction)
    if predicted.shape != wanted.shape:
        raise ValueError(
            f"the denoiser returned {tuple(predicted.shape)} for x_t of {tuple(wanted.shape)}"
        )
    error = (predicted.float() - wanted).square().flatten(1).mean(1)  # (b,)
    weight = loss_weight(noised.t, schedule, prediction, snr_gamma)  # (b,)
    return error * weight.to(error, non_blocking=True)


def training_loss(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Condition | None,
    schedule: NoiseSchedule,
    prediction: str = "v",
    snr_gamma: float | None = None,
    null: Condition | None = None,
    cfg_drop: float = 0.0,
    generator: torch.Generator | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
) -> Tensor:
    """The loss (b,) float32 of each sample (2006.11239, eq. 14).

    x0:        (b, ...) clean data
    snr_gamma: weighs errors by min-SNR (2303.09556); None weighs all alike
    null:      one row, which replaces a sample's condition with probability cfg_drop
    generator: on the CPU; draws which conditions are dropped, then t, then eps. None takes torch's
               own.
    t, eps:    (b,) and (b, ...), for a caller who has drawn them already
    """
    check_prediction(prediction, schedule)
    condition = drop_condition(condition, null, cfg_drop, generator)
    noised = draw_noise(x0, schedule, generator, t=t, eps=eps)
    predicted = denoiser(noised.x_t, noised.t.float(), condition)
    return prediction_error(predicted, noised, prediction, schedule, snr_gamma=snr_gamma)
