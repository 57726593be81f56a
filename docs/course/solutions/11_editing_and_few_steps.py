"""Solutions of chapter 11, "Editing and few steps"."""

import math

import torch
from torch import Tensor

from tinyldm.diffusion.schedule import Level


def kept(level: Level, size: float) -> float:
    """The correlation of a picture and of what is drawn from it, noised up to a level.

    For data N(m, size^2): of the result's variance size^2, the share kept^2 comes from the picture.
    """
    signal = level.alpha * size
    return signal / math.hypot(signal, level.sigma)


def on_the_sphere(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Between two noises of one shape; 0 gives a, 1 gives b.

    Where they are parallel, sin(theta) is 0, and the straight line is the limit of the formula.
    """
    cosine = (a * b).sum() / (a.norm() * b.norm())
    theta = cosine.clamp(-1, 1).acos()
    if theta.sin() < 1e-4:
        return (1 - share) * a + share * b
    return (((1 - share) * theta).sin() * a + (share * theta).sin() * b) / theta.sin()


def consistency_of_mixture(x: Tensor, level: Level, means: Tensor, size: float) -> Tensor:
    """Where the flow from x (n,) at a level ends, for equal parts of N(means[k], size^2).

    x_t is a mixture too, of N(alpha means[k], alpha^2 size^2 + sigma^2). The result is where the
    data have the quantile that x has there; it is found by halving an interval, 60 times.
    """
    x, means = x.double(), means.double()

    def quantile(x: Tensor, means: Tensor, size: float) -> Tensor:
        return torch.special.ndtr((x[:, None] - means) / size).mean(1)

    spread = math.hypot(level.alpha * size, level.sigma)
    wanted = quantile(x, level.alpha * means, spread)
    low = torch.full_like(x, means.min().item() - 8 * size)
    high = torch.full_like(x, means.max().item() + 8 * size)
    for _ in range(60):
        middle = (low + high) / 2
        below = quantile(middle, means, size) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
