"""Solutions of chapter 2."""

from collections.abc import Callable

import torch
from torch import Tensor

from tinyldm import NoiseSchedule
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.diffusion.sampler import Denoiser


def ideal(data: Tensor, schedule: NoiseSchedule) -> Denoiser:
    """Exercise 1: the best guess of x0, where x0 is any row of data (n, ...), all alike likely.

    By Bayes' rule a row weighs as much as the noise is likely that would lead from it to x_t,
    exp(-|x_t - alpha x0|^2 / (2 sigma^2)); softmax makes the weights sum to 1.

    What is drawn is a picture of the data, to the last digit. A network that was perfect on its
    training set would be a slow way of opening a file. It draws new pictures because it cannot
    be: it has to do with one set of weights for all pictures, and so it guesses by what they share.
    """
    rows = data.flatten(1).double()

    def guess(x: Tensor, t: Tensor, condition: object) -> Tensor:
        level = schedule.level(t[0].item())
        distance = torch.cdist(x.flatten(1).double(), level.alpha * rows)
        weights = torch.softmax(-(distance**2) / (2 * level.sigma**2), 1)
        return (weights @ rows).view(x.shape).to(x)

    return guess


def score(
    denoiser: Denoiser, x: Tensor, t: float, schedule: NoiseSchedule, prediction: str = "v"
) -> Tensor:
    """Exercise 2: the gradient of log p_t at x, which is -eps / sigma."""
    level = schedule.level(t)
    predicted = denoiser(x, torch.full((len(x),), t), None)
    _, eps = to_x0_eps(predicted, x, level, prediction)
    return -eps / level.sigma


def bound(schedule: NoiseSchedule, error: Callable[[int], float]) -> float:
    """Exercise 3: the sum of (SNR_s - SNR_t) / 2 times the error at t, with s = t - 1.

    t runs from T - 1 down to 1. The step from t = 0 to clean data is one of the ends: it is no
    normal variable any more, and SNR is infinite behind it.
    """
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    steps = range(1, schedule.timesteps)
    return sum(0.5 * (snr[t - 1] - snr[t]).item() * error(t) for t in steps)
