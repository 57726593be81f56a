"""Solutions of chapter 3."""

import torch
from torch import Tensor

from tinyldm import NoiseSchedule
from tinyldm.condition import Condition
from tinyldm.diffusion.prediction import target, to_x0_eps
from tinyldm.diffusion.sampler import Denoiser


def counts(schedule: NoiseSchedule, prediction: str, lambda_: float) -> float:
    """Exercise 1: what an error of x0 counts at lambda, in training with t drawn evenly.

    How often: the share of all t in a tenth of lambda around it, divided by that tenth.
    How much: at a given x_t, an error of 1 in x0 is one of -alpha / sigma in eps. target() is
    linear, so it says what these two errors make together in what is predicted.
    """
    ends = torch.tensor([lambda_ - 0.05, lambda_ + 0.05], dtype=torch.float64)
    after, before = schedule.t_of_lambda(ends).tolist()
    often = (after - before) / schedule.timesteps / 0.1
    level = schedule.level(schedule.t_of_lambda(lambda_).item())
    one = torch.ones(1, dtype=torch.float64)
    much = target(one, -one * level.alpha / level.sigma, level, prediction)
    return often * much.item() ** 2


def carried_over(
    denoiser: Denoiser, prediction: str, home: NoiseSchedule, away: NoiseSchedule
) -> Denoiser:
    """Exercise 2: a denoiser of home's, as one of away's that predicts x0.

    x / alpha and sigma / alpha are what counts: it is asked at the t where home has the same
    lambda, about x with home's alpha in the place of away's. Beyond the ends of home it is asked
    at the end.
    """

    def guess(x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        there = away.level(t[0].item())
        here = home.level(home.t_of_lambda(there.lambda_).item())
        x_here = x * (here.alpha / there.alpha)
        predicted = denoiser(x_here, torch.full_like(t, here.t), condition)
        return to_x0_eps(predicted, x_here, here, prediction)[0]

    return guess


@torch.no_grad()
def reflow(denoiser: Denoiser, noise: Tensor, steps: int = 100) -> tuple[Tensor, float]:
    """Exercise 3: (the x0 that the flow joins with each noise, how far the flow is from straight).

    denoiser predicts the velocity on the straight path of 1,000 timesteps.
    """
    x, velocities = noise, []
    for i in range(steps, 0, -1):
        t = torch.full((len(x),), 1000 * i / steps - 1)
        u = denoiser(x, t, None)
        x = x - u / steps
        velocities.append(u)
    straight = noise - x
    bent = torch.stack([(u - straight).square().mean() for u in velocities]).mean()
    return x, bent.item()
