"""Solutions of chapter 9, "Training that works, and what to look at when it doesn't"."""

import torch
from torch import Tensor

from tinyldm import NoiseSchedule
from tinyldm.diffusion.loss import draw_noise
from tinyldm.diffusion.schedule import Level


def least_loss(level: Level, prediction: str, size: float) -> float:
    """The mean square error of the best denoiser for data N(0, size^2) at a level.

    Given x_t, eps = (x_t - alpha x0) / sigma, so whatever is predicted is known but for x0: it is
    a multiple of x0 plus something known. Its variance is that multiple, squared, times
    Var(x0 | x_t) = size^2 sigma^2 / (alpha^2 size^2 + sigma^2).
    """
    alpha, sigma = level.alpha, level.sigma
    multiple = {
        "eps": alpha / sigma,
        "x0": 1.0,
        "v": alpha**2 / sigma + sigma,
        "flow": alpha / sigma + 1,
    }
    variance = size**2 * sigma**2 / (alpha**2 * size**2 + sigma**2)
    return multiple[prediction] ** 2 * variance


def weights_of_average(decay: float, updates: int, warmup: bool = True) -> Tensor:
    """The share of the start, and of the weights after each of the updates: (updates + 1,).

    Each update keeps d of all that is there and adds 1 - d of what is new.
    """
    shares = torch.zeros(updates + 1, dtype=torch.float64)
    shares[0] = 1
    for k in range(updates):
        d = min(decay, (1 + k) / (10 + k)) if warmup else decay
        shares *= d
        shares[k + 1] = 1 - d
    return shares


def what_is_predicted(denoiser, x0: Tensor, schedule: NoiseSchedule) -> str:
    """eps, x0, v or flow, told by what a denoiser says at both ends of the schedule.

    x0: (b, ...), data that the denoiser was made for; a few dozen will do.

    At the last level x_t is eps, and nothing is known of x0: eps and flow = eps - x0 follow x_t,
    and the others have nothing to follow. At the first level x_t is x0, and nothing is known of
    eps: x0 follows x_t, flow runs against it. "Nearest target" would be a worse rule: where little
    can be known, the best answer to one question lies near the target of another.
    """

    def follows(t: int) -> float:
        """The slope of the regression of the prediction on x_t."""
        times = torch.full((len(x0),), t)
        noised = draw_noise(x0, schedule, torch.Generator().manual_seed(0), t=times)
        with torch.no_grad():
            predicted = denoiser(noised.x_t, times.float(), None)
        return ((predicted * noised.x_t).sum() / noised.x_t.square().sum()).item()

    first, last = follows(0), follows(schedule.timesteps - 1)
    if last > 0.5:
        return "flow" if first < -0.5 else "eps"
    return "x0" if first > 0.5 else "v"
