"""Solutions of chapter 1."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tinyldm import NoiseSchedule


def small_steps(x0: Tensor, betas: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Exercise 1: x_i = sqrt(1 - beta_i) x_(i-1) + sqrt(beta_i) z, for all i."""
    x, path = x0, []
    for beta in betas:
        z = torch.randn(x.shape, generator=generator)
        x = (1 - beta).sqrt() * x + beta.sqrt() * z
        path.append(x)
    return path


def shared(schedule: NoiseSchedule, t: float, s: float) -> float:
    """Exercise 1: what the noise of x_t and that of x_s, s < t, have in common.

    The steps from s to t multiply all of x_s by alpha_t / alpha_s, its noise sigma_s eps_s too, and
    add noise that knows nothing of it. So (alpha_t / alpha_s) sigma_s eps_s is a part of the noise
    sigma_t eps_t, and the correlation is the ratio of the two sizes.
    """
    at, to = schedule.level(t), schedule.level(s)
    return at.alpha * to.sigma / (to.alpha * at.sigma)


def same_look(schedule: NoiseSchedule, t: float, factor: float) -> float:
    """Exercise 2: the time at which a picture `factor` times as large looks as noisy as one at t.

    Seen from so far away that it has the size of the original, factor x factor pixels merge into
    one, and their noise is divided by factor. So it needs factor times the noise from the start:
    sigma / alpha times factor, lambda less log(factor).
    """
    lambda_ = schedule.lambda_(t) - torch.tensor(factor, dtype=torch.float64).log()
    return schedule.t_of_lambda(lambda_).item()


@dataclass(frozen=True)
class Even(NoiseSchedule):
    """Exercise 3: lambda falls evenly from 5 to -5.

    alpha^2 / (1 - alpha^2) = e^(2 lambda), so alpha^2 is the sigmoid of 2 lambda; a beta is what a
    step takes away from it.
    """

    @cached_property
    def betas(self) -> Tensor:
        alpha_bar = (2 * torch.linspace(5, -5, self.timesteps, dtype=torch.float64)).sigmoid()
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        return 1 - alpha_bar / before
