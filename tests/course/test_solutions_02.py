"""Chapter 2: against the closed forms of coins and bells, autograd, and torch's own divergence."""

import pytest
import torch
from torch.distributions import MixtureSameFamily, Normal, kl_divergence

from tinyldm import DDIM, NoiseSchedule, sample
from tinyldm.diffusion.prediction import target


def test_the_ideal_guess_of_a_coin_is_a_tanh(solutions):
    schedule = NoiseSchedule()
    guess = solutions.ideal(torch.tensor([[-1.0], [1.0]]), schedule)
    x = torch.linspace(-3, 3, 25).view(-1, 1)
    for t in (50, 400, 800, 999):
        level = schedule.level(t)
        expected = torch.tanh(level.alpha * x / level.sigma**2)
        torch.testing.assert_close(guess(x, torch.full((25,), float(t)), None), expected)


def test_what_is_perfect_repeats_its_data(solutions):
    data = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    schedule = NoiseSchedule()
    how = {"steps": 20, "prediction": "x0", "seeds": range(8)}
    drawn = sample(solutions.ideal(data, schedule), (8, 3, 4, 4), schedule, DDIM(), **how)
    distance = torch.cdist(drawn.flatten(1), data.flatten(1))
    assert distance.min(1).values.max() < 1e-4
    assert len(set(distance.argmin(1).tolist())) > 1


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow"])
def test_the_score_is_the_gradient_of_a_density(solutions, prediction):
    """Three bells on a line: torch differentiates the logarithm of their mixture."""
    means, stds = torch.tensor([-1.0, 0.2, 1.5]).double(), torch.tensor([0.1, 0.3, 0.2]).double()
    weights = torch.distributions.Categorical(torch.tensor([0.5, 0.2, 0.3]).double())
    schedule = NoiseSchedule("linear")
    for t in (20.0, 300.0, 700.0):
        level = schedule.level(t)
        total = (level.alpha**2 * stds**2 + level.sigma**2).sqrt()
        bells = Normal(level.alpha * means, total)

        def guess(x, t, condition, level=level, bells=bells, total=total):
            """E[x0 | x], each bell's own (linear in x) weighed by how likely the bell is."""
            shares = (bells.log_prob(x) + weights.logits).softmax(1)
            slope = level.alpha * stds**2 / total**2
            x0 = (shares * (means + slope * (x - level.alpha * means))).sum(1, keepdim=True)
            return target(x0, (x - level.alpha * x0) / level.sigma, level, prediction)

        x = torch.linspace(-2, 2, 41).double().view(-1, 1).requires_grad_()
        density = MixtureSameFamily(weights, bells).log_prob(x.squeeze(1))
        (expected,) = torch.autograd.grad(density.sum(), x)
        found = solutions.score(guess, x.detach(), t, schedule, prediction)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "schedule",
    [NoiseSchedule(timesteps=40), NoiseSchedule("linear", 40, beta_start=1e-3, beta_end=0.5)],
    ids=["cosine", "linear"],
)
def test_the_bound_is_the_sum_of_divergences(solutions, schedule):
    """Of the normal variables of DDPM's eq. 6 and 7, with the betas written out as there."""
    bar = schedule.alpha_bar
    total = 0.0
    x_t, x0, guess = 0.3, 0.7, 0.4
    for t in range(1, 40):
        beta = 1 - bar[t] / bar[t - 1]
        variance = (1 - bar[t - 1]) / (1 - bar[t]) * beta

        def mean(x0, t=t, beta=beta):
            of_data = bar[t - 1].sqrt() * beta / (1 - bar[t]) * x0
            return of_data + (1 - beta).sqrt() * (1 - bar[t - 1]) / (1 - bar[t]) * x_t

        q, p = (Normal(mean(value), variance.sqrt()) for value in (x0, guess))
        total += kl_divergence(q, p).item()
    assert solutions.bound(schedule, lambda t: (x0 - guess) ** 2) == pytest.approx(total)
