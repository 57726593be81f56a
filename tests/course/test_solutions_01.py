"""Chapter 1: steps against their closed form, sizes against pictures that are averaged."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from tinyldm import DDIM, NoiseSchedule, sample


def test_the_small_steps_are_the_formula(solutions):
    """Exactly in the data, for two walks with the same noise; within 4 standard errors in it."""
    schedule = NoiseSchedule(timesteps=50)
    before = torch.cat([torch.ones(1), schedule.alpha_bar[:-1]])
    betas = 1 - schedule.alpha_bar / before
    n = 20_000

    def walk(x0):
        g = torch.Generator().manual_seed(0)
        return solutions.small_steps(torch.full((n,), x0, dtype=torch.float64), betas, g)

    one, other = walk(1.0), walk(3.0)
    assert len(one) == 50
    for i in range(50):
        level = schedule.level(i)
        torch.testing.assert_close(other[i] - one[i], torch.full((n,), 2.0).double() * level.alpha)
        noise = (one[i] - level.alpha) / level.sigma
        assert abs(noise.mean()) < 4 / n**0.5
        assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    for t, s in ((20, 0), (49, 20), (40, 39)):
        noise = [(one[i] - schedule.level(i).alpha) / schedule.level(i).sigma for i in (t, s)]
        measured = (noise[0] * noise[1]).mean().item()
        assert abs(measured - solutions.shared(schedule, t, s)) < 4 * (2 / n) ** 0.5


@pytest.mark.parametrize("kind", ["cosine", "linear", "flow"])
@pytest.mark.parametrize("factor", [2, 4])
def test_a_larger_picture_looks_the_same_when_it_is_averaged(solutions, kind, factor):
    schedule = NoiseSchedule(kind)
    g = torch.Generator().manual_seed(1)
    for t in (100, 400):
        small, large = schedule.level(t), schedule.level(solutions.same_look(schedule, t, factor))
        noise = avg_pool2d(torch.randn(1, 1, 256 * factor, 256 * factor, generator=g), factor)
        seen = large.sigma / large.alpha * noise.std().item()
        assert seen == pytest.approx(small.sigma / small.alpha, rel=4 / (2 * 256**2) ** 0.5)


def test_lambda_falls_evenly(solutions):
    schedule = solutions.Even()
    lambdas = schedule.lambda_(torch.arange(1000))
    assert lambdas[0] == pytest.approx(5)
    assert lambdas[-1] == pytest.approx(-5)
    torch.testing.assert_close(lambdas.diff(), torch.full((999,), -10 / 999).double())


def test_samples_of_the_even_schedule_have_the_spread_of_the_data(solutions):
    """x0 ~ N(0, 0.5^2), whose best guess is known: by all thousand steps, to a hundredth."""
    schedule, std = solutions.Even(), 0.5

    def guess(x, t, condition):
        level = schedule.level(t[0].item())
        return level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2) * x

    start = torch.tensor([[-1.0], [1.0]])
    drawn = sample(guess, (2, 1), schedule, DDIM(), 1000, prediction="x0", noise=start)
    assert drawn[1].item() == pytest.approx(std, rel=0.01)
    assert drawn[0].item() == -drawn[1].item()
    assert math.isclose(schedule.level(999).alpha, 1 / math.hypot(1, math.exp(5)))
