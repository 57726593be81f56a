"""What training minimises: a denoiser's error on data to which noise has been added."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.prediction import check, target
from tinyldm.diffusion.schedule import NoiseSchedule


def add_noise(x0: Tensor, eps: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """x_t (2006.11239, eq. 4) in float32, whatever the dtype of x0. x0, eps: (b, ...); t: (b,)."""
    level = schedule.level(t).like(x0)
    return level.alpha * x0.float() + level.sigma * eps.float()


def loss_weight(
    t: Tensor, schedule: NoiseSchedule, prediction: str, snr_gamma: float | None
) -> Tensor:
    """The weight (b,) float64 of an error at t: 1, or min-SNR's (2303.09556, sec. 3.4) if snr_gamma is given."""
    if snr_gamma is None:
        return torch.ones(t.shape, dtype=torch.float64)
    snr = torch.exp(2 * schedule.lambda_(t))
    # an error of eps is one of x0 times SNR, an error of v one of x0 times SNR + 1
    return snr.clamp(max=snr_gamma) / {"x0": 1, "eps": snr, "v": snr + 1}[prediction]


def training_loss(
    denoiser,
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
    """The loss (b,) float32 of each sample (2006.11239, eq. 14), the mean square over everything but the batch.

    x0:        (b, ...) clean data
    null:      one row, put in place of a sample's condition with probability cfg_drop (2207.12598, algorithm 1)
    generator: on the CPU; draws which conditions are dropped, then t, then eps; None takes torch's own
    t, eps:    (b,) and (b, ...), for a caller that draws them
    """
    check(prediction, schedule)
    if not 0 <= cfg_drop <= 1:
        raise ValueError(f"cfg_drop is a probability, got {cfg_drop}")
    if cfg_drop > 0:
        if condition is None or null is None:
            raise ValueError(
                "cfg_drop needs a condition to drop and a null condition to put in its place"
            )
        dropped = torch.rand(len(x0), generator=generator) < cfg_drop
        condition = condition.drop(null.to(x0.device), dropped)
    if t is None:
        t = torch.randint(schedule.timesteps, (len(x0),), generator=generator)
    if eps is None:
        eps = torch.randn(x0.shape, generator=generator).to(x0.device, non_blocking=True)
    x0, eps = x0.float(), eps.float()
    wanted = target(x0, eps, schedule.level(t).like(x0), prediction)
    predicted = denoiser(add_noise(x0, eps, t, schedule), t.float(), condition)
    if predicted.shape != wanted.shape:
        raise ValueError(
            f"the denoiser returned {tuple(predicted.shape)} for x_t of {tuple(wanted.shape)}"
        )
    error = (predicted.float() - wanted).square().flatten(1).mean(1)  # (b,)
    return error * loss_weight(t, schedule, prediction, snr_gamma).to(error, non_blocking=True)
