"""Chapter 3: against counted timesteps, closed forms on both paths, and the exact Gaussian flow."""

import math

import numpy as np
import pytest
import torch

from tinyldm import NoiseSchedule
from tinyldm.diffusion.prediction import target


@pytest.mark.parametrize(
    ("schedule", "prediction", "expected"),
    [
        (NoiseSchedule("flow"), "flow", lambda e: e),
        (NoiseSchedule("cosine"), "v", lambda e: 2 / math.pi * e),
        (NoiseSchedule("flow"), "x0", lambda e: 1 / ((1 + e) * (1 + 1 / e))),
        (NoiseSchedule("flow"), "eps", lambda e: e**2 / ((1 + e) * (1 + 1 / e))),
    ],
    ids=["flow", "v", "x0", "eps"],
)
def test_what_errors_count_is_what_the_chapter_derives(solutions, schedule, prediction, expected):
    """To 1.5 hundredths, of which the cosine schedule's offset of 0.008 takes one."""
    for lambda_ in np.linspace(-2.5, 2.5, 11):
        found = solutions.counts(schedule, prediction, float(lambda_))
        assert found == pytest.approx(expected(math.exp(lambda_)), rel=0.015)


def test_how_often_a_level_is_trained_is_what_timesteps_say(solutions):
    """All timesteps of a linear schedule, counted in bins; x0 is the prediction of gain 1."""
    schedule = NoiseSchedule("linear", 20_000, beta_start=5e-6, beta_end=1e-3)
    lambdas = schedule.lambda_(torch.arange(20_000)).numpy()
    shares, edges = np.histogram(lambdas, bins=np.linspace(-3, 3, 61))
    for share, low in zip(shares, edges, strict=False):
        found = solutions.counts(schedule, "x0", low + 0.05)
        assert found == pytest.approx(share / 20_000 / 0.1, abs=2 / 20_000 / 0.1)


def two_bells(x, level):
    """E[x0 | x_t] for x0 = -1 or 1 with a deviation of 0.3."""
    means = torch.tensor([-1.0, 1.0]).double()
    variance = level.alpha**2 * 0.3**2 + level.sigma**2
    away = x - level.alpha * means
    shares = (-(away**2) / (2 * variance)).softmax(1)
    return (shares * (means + level.alpha * 0.3**2 / variance * away)).sum(1, keepdim=True)


@pytest.mark.parametrize("away", ["linear", "cosine", "flow"])
@pytest.mark.parametrize(("home", "prediction"), [("cosine", "v"), ("flow", "flow")])
def test_a_denoiser_that_is_carried_over_is_the_ideal_one_there(solutions, home, prediction, away):
    home, away = NoiseSchedule(home), NoiseSchedule(away)

    def at_home(x, t, condition):
        level = home.level(t[0].double().item())
        x0 = two_bells(x, level)
        return target(x0, (x - level.alpha * x0) / level.sigma, level, prediction)

    carried = solutions.carried_over(at_home, prediction, home, away)
    x = torch.linspace(-3, 3, 31).double().view(-1, 1)
    for t in (30.0, 300.0, 500.0, 900.0):
        found = carried(x, torch.full((31,), t).double(), None)
        torch.testing.assert_close(found, two_bells(x, away.level(t)), rtol=1e-6, atol=1e-9)


def test_the_flow_to_a_single_point_is_straight(solutions):
    point = torch.tensor([[0.5, -2.0]])

    def velocity(x, t, condition):
        return (x - point) / ((t.view(-1, 1) + 1) / 1000)

    noise = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    x0, bent = solutions.reflow(velocity, noise, 50)
    torch.testing.assert_close(x0, point.expand(10, 2), rtol=0, atol=1e-5)
    assert bent < 1e-9


def test_the_flow_of_a_bell_is_as_bent_as_its_formula(solutions):
    """x0 ~ N(0, s^2): a point moves as x = r eps, with r^2 = (1 - sigma)^2 s^2 + sigma^2."""
    s, steps = 0.25, 2000

    def slope(sigma):  # of r
        r = ((1 - sigma) ** 2 * s**2 + sigma**2) ** 0.5
        return (sigma - (1 - sigma) * s**2) / r, r

    def velocity(x, t, condition):
        rise, r = slope((t.view(-1, 1) + 1) / 1000)
        return x * rise / r

    noise = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).double()
    x0, bent = solutions.reflow(velocity, noise, steps)
    torch.testing.assert_close(x0, s * noise, rtol=0.005, atol=0)  # Euler's error, 1 / steps
    sigma = (torch.arange(100_000).double() + 0.5) / 100_000
    expected = (slope(sigma)[0] - (1 - s)).square().mean() * noise.square().mean()
    assert bent == pytest.approx(expected.item(), rel=0.01)
