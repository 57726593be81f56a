"""Solutions of chapter 8, "Latents and the autoencoder"."""

from dataclasses import replace

from torch import Tensor

from tinyldm import NoiseSchedule


def kl_to_normal(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of each number.

    It is zero only at mean 0 and std 1. That is where a latent value goes that says nothing about
    the picture: there it costs nothing, and the decoder learns to ignore it.
    """
    return (mean**2 + std**2 - 1) / 2 - std.log()


def latent_statistics(means: Tensor, stds: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (c,) of latents drawn from posteriors (n, c, h, w).

    E z^2 is the mean of mean^2 + std^2: what is drawn is as wide as the means are spread, and
    wider by the mean width of a posterior.
    """
    over = (0, 2, 3)
    mean = means.mean(over)
    square = (means**2 + stds**2).mean(over)
    return mean, (square - mean**2).sqrt()


def schedule_for(schedule: NoiseSchedule, k: float) -> NoiseSchedule:
    """The schedule that does to data of unit size what the given one does to data of size k.

    The log-SNR grows by log k at every t, so alpha / sigma is multiplied by k: that is the shift.
    """
    return replace(schedule, shift=schedule.shift * k)
