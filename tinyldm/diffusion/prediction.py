"""What a denoiser predicts (eps, x0, v or flow), and the way from each to the others."""

from __future__ import annotations

from torch import Tensor

from tinyldm.diffusion.schedule import BatchLevel, Level, NoiseSchedule

PREDICTIONS = ("eps", "x0", "v", "flow")


def check_prediction(kind: str, schedule: NoiseSchedule) -> None:
    """ValueError for an unknown kind, and for eps where the last level is pure noise.

    There x_t = eps, and a prediction of eps says nothing about x0.
    """
    if kind not in PREDICTIONS:
        raise ValueError(f"unknown prediction {kind!r}, expected one of {', '.join(PREDICTIONS)}")
    if kind == "eps" and schedule.ends_in_noise:
        end = "the schedule 'flow'" if schedule.kind == "flow" else "zero_snr"
        raise ValueError(
            f"eps prediction can't work with {end} (2305.08891, sec. 3.2); use v, x0 or flow"
        )


def target(x0: Tensor, eps: Tensor, level: Level | BatchLevel, kind: str) -> Tensor:
    """What a perfect denoiser returns for x_t = alpha x0 + sigma eps. x0, eps: (b, ...)."""
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "v":  # 2202.00512, app. D
        return level.alpha * eps - level.sigma * x0
    if kind == "flow":  # 2209.03003: the velocity of the straight path, from data to noise
        return eps - x0
    raise ValueError(f"unknown prediction {kind!r}, expected one of {', '.join(PREDICTIONS)}")


def to_x0_eps(
    prediction: Tensor, x_t: Tensor, level: Level | BatchLevel, kind: str
) -> tuple[Tensor, Tensor]:
    """The x0 and the eps that a prediction of this kind stands for. All tensors: (b, ...)."""
    if kind == "eps":  # x_t = alpha x0 + sigma eps, solved for x0
        x0 = (x_t - level.sigma * prediction) / level.alpha
        return x0, prediction
    if kind == "x0":
        return prediction, eps_of(prediction, x_t, level)
    if kind == "v":  # 2202.00512, app. D: (x_t, v) is (x0, eps), rotated and scaled
        x0 = level.alpha * x_t - level.sigma * prediction
        eps = level.sigma * x_t + level.alpha * prediction
        square = level.alpha**2 + level.sigma**2  # 1 where variance is preserved
        return x0 / square, eps / square
    if kind == "flow":  # eps = x0 + prediction, put into x_t = alpha x0 + sigma eps
        total = level.alpha + level.sigma  # 1 on the straight path
        return (x_t - level.sigma * prediction) / total, (x_t + level.alpha * prediction) / total
    raise ValueError(f"unknown prediction {kind!r}, expected one of {', '.join(PREDICTIONS)}")


def eps_of(x0: Tensor, x_t: Tensor, level: Level | BatchLevel) -> Tensor:
    """The noise that leads from x0 to x_t. Needed again whenever x0 is changed, as by clipping."""
    return (x_t - level.alpha * x0) / level.sigma
