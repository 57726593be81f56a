"""Data for which everything is known: x0 ~ N(mean, std^2), each dimension by itself."""

import math
from dataclasses import dataclass

import torch

from tinyldm.diffusion.schedule import Level, NoiseSchedule


def log_snr_grid(n, first, last, straight=False):
    """n + 1 levels, uniform in lambda; t is the number of the level, counted down."""
    lambdas = [first + (last - first) * i / n for i in range(n + 1)]
    return tuple(level_at(v, float(n - i), straight) for i, v in enumerate(lambdas))


def level_at(lambda_, t=0.0, straight=False):
    """The level of a half log-SNR, with alpha^2 + sigma^2 = 1, or alpha + sigma = 1 if straight."""
    if straight:
        return Level(t, 1 / (1 + math.exp(-lambda_)), 1 / (1 + math.exp(lambda_)))
    return Level(
        t, 1 / math.sqrt(1 + math.exp(-2 * lambda_)), 1 / math.sqrt(1 + math.exp(2 * lambda_))
    )


@dataclass(frozen=True)
class Gaussian:
    """The optimal denoiser and the exact flow; levels are found by their t."""

    mean: float
    std: float
    levels: tuple[Level, ...]

    @staticmethod
    def on(schedule: NoiseSchedule, mean: float, std: float):
        """For the whole timesteps of a schedule."""
        return Gaussian(mean, std, schedule.levels(range(schedule.timesteps - 1, -1, -1)))

    def spread(self, level):
        """The standard deviation of x at a level."""
        return math.hypot(level.alpha * self.std, level.sigma)

    def x0(self, x, level):
        """E[x0 | x], by the formula for two Gaussians."""
        gain = level.alpha * self.std**2 / self.spread(level) ** 2
        return self.mean + gain * (x - level.alpha * self.mean)

    def pair(self, x, level):
        """(x0, eps) of the optimal denoiser."""
        x0 = self.x0(x, level)
        return x0, (x - level.alpha * x0) / level.sigma

    def at(self, z, level):
        """Where the flow that ends at mean + std z passes: it keeps the quantile z."""
        return level.alpha * self.mean + self.spread(level) * z

    def denoiser(self, kind="x0"):
        """As sample() calls it."""
        table = {torch.tensor(level.t).item(): level for level in self.levels}

        def denoise(x, t, condition):
            level = table[t[0].item()]
            x0, eps = self.pair(x, level)
            v = level.alpha * eps - level.sigma * x0
            return {"x0": x0, "eps": eps, "v": v, "flow": eps - x0}[kind]

        return denoise
