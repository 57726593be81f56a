"""Solutions of chapter 7, Guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from tinyldm import Condition, NoiseSchedule
from tinyldm.diffusion.sampler import Denoiser


def tilted(mean_c: float, std_c: float, mean: float, std: float, w: float) -> tuple[float, float]:
    """Exercise 1: mean and standard deviation of N(mean_c, std_c^2)^w N(mean, std^2)^(1 - w).

    In the exponent, precisions add up, and so do precisions times means, with weights w and 1 - w.
    ValueError where the precision is not above 0: the power of the wider density then grows faster
    at the far ends than that of the narrower one falls, and there is no area to divide by.
    """
    precision = w / std_c**2 + (1 - w) / std**2
    if precision <= 0:
        raise ValueError(f"the precision is {precision}: the product is no density")
    return (w * mean_c / std_c**2 + (1 - w) * mean / std**2) / precision, precision**-0.5


def rows_of_a_picture(
    schedule: NoiseSchedule, steps: int, interval: tuple[float, float] | None
) -> int:
    """Exercise 2: a step inside of the interval costs two rows, any other one; without, all two."""
    rows = 0
    for level in schedule.grid(steps)[:-1]:  # the last level is clean data, where nothing is called
        low, high = interval or (0.0, float("inf"))
        edm_sigma = level.sigma / level.alpha if level.alpha > 0 else float("inf")
        rows += 2 if low < edm_sigma <= high else 1
    return rows


def with_classifier(
    denoiser: Denoiser,
    log_p: Callable[[Tensor, Tensor], Tensor],
    w: float,
    schedule: NoiseSchedule,
) -> Denoiser:
    """Exercise 3: x0 of the denoiser, led to a class by the gradient of log p(c | x_t).

    Tweedie: x0 = (x_t + sigma^2 score) / alpha. What is added to the score counts sigma^2 / alpha
    times in x0.
    """

    def guided(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_p(x, t).sum(), x)
        level = schedule.level(t).like(x_t)
        return denoiser(x_t, t, condition) + w * level.sigma**2 / level.alpha * gradient

    return guided
