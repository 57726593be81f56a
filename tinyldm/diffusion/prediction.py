"""What a denoiser predicts (eps, x0 or v) and the way from each to the others."""

from torch import Tensor

from tinyldm.diffusion.schedule import Level, NoiseSchedule

PREDICTIONS = ("eps", "x0", "v")


def check(kind: str, schedule: NoiseSchedule) -> None:
    """Refuse an unknown kind, and eps where the last level is pure noise: there x_t = eps says nothing of x0."""
    if kind not in PREDICTIONS:
        raise ValueError(f"unknown prediction {kind!r}, expected one of {', '.join(PREDICTIONS)}")
    if kind == "eps" and schedule.alpha_bar[-1] == 0:
        raise ValueError(
            "eps prediction can't work with zero_snr (2305.08891, sec. 3.2); use v or x0"
        )


def target(x0: Tensor, eps: Tensor, level: Level, kind: str) -> Tensor:
    """What a perfect denoiser returns for x_t = alpha x0 + sigma eps. x0, eps: (b, ...)."""
    if kind == "v":  # 2202.00512, app. D: v = alpha eps - sigma x0
        return level.alpha * eps - level.sigma * x0
    return {"eps": eps, "x0": x0}[kind]


def to_x0_eps(prediction: Tensor, x_t: Tensor, level: Level, kind: str) -> tuple[Tensor, Tensor]:
    """The data and the noise that a prediction means. prediction, x_t, x0, eps: (b, ...)."""
    if kind == "eps":  # x_t = alpha x0 + sigma eps, solved for x0
        return (x_t - level.sigma * prediction) / level.alpha, prediction
    if kind == "x0":
        return prediction, eps_of(prediction, x_t, level)
    if kind == "v":  # the rotation (x_t, v) -> (x0, eps) of 2202.00512, app. D
        return (
            level.alpha * x_t - level.sigma * prediction,
            level.sigma * x_t + level.alpha * prediction,
        )
    raise ValueError(f"unknown prediction {kind!r}, expected one of {', '.join(PREDICTIONS)}")


def eps_of(x0: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """The noise that makes x_t of x0; needed again whenever x0 is changed, by clipping for one."""
    return (x_t - level.alpha * x0) / level.sigma
