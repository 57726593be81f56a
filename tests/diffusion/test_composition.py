"""Composition of prompts against products of Gaussians, which are Gaussians."""

import pytest
import torch
from gaussian import Gaussian

from tinyldm.condition import Condition
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.methods.composition import Composed

COSINE = NoiseSchedule()
NULL = Condition(vector=torch.tensor([[0.0, 1.0, 0.0, 1.0]]))


def told(*numbers):
    """A condition of one row: mean and deviation of pixel 0, and of pixel 1."""
    return Condition(vector=torch.tensor([numbers]))


def denoiser(x, t, condition):
    """E[x0 | x_t] of two independent pixels, whose Gaussians the condition states."""
    level = COSINE.level(t[0].item())
    mean, std = (condition.vector[:, k::2].view(-1, 2, 1, 1) for k in (0, 1))
    gain = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
    return mean + gain * (x - level.alpha * mean)


def draw(composed, scale=1.0, steps=400, **how):
    b = len(composed)
    guidance = composed.guidance(Guidance(scale, NULL))
    return sample(
        denoiser,
        (b, 2, 1, 1),
        COSINE,
        DPMSolver(2),
        steps,
        condition=composed.parts[0],
        guidance=guidance,
        prediction="x0",
        seeds=[3] * b,
        **how,
    ).view(b, 2)


def flow(mean, std):
    """Where the flow of N(mean, std^2) leads the noise of seed 3 to."""
    noise = torch.randn((2, 1, 1), generator=torch.Generator().manual_seed(3)).view(2)
    top, truth = COSINE.grid(1)[0], Gaussian.on(COSINE, mean, std)
    return mean + std * (noise - top.alpha * mean) / truth.spread(top)


def test_two_prompts_that_know_nothing_of_each_other_are_both_fulfilled():
    """One says something about pixel 0, the other about pixel 1. The product of p(x | c_1) and
    p(x | c_2) over p(x) is the Gaussian that has both, at every level of noise."""
    first, second = told(2.0, 0.3, 0.0, 1.0), told(0.0, 1.0, -1.5, 0.2)
    drawn = draw(Composed((first, second), torch.ones(1, 2)))[0]
    expected = torch.stack([flow(2.0, 0.3)[0], flow(-1.5, 0.2)[1]])
    torch.testing.assert_close(drawn, expected, atol=3e-3, rtol=0)


def test_the_way_from_one_prompt_to_another_leads_over_the_means():
    """N(m_1, s^2)^(1 - a) N(m_2, s^2)^a is N((1 - a) m_1 + a m_2, s^2), at every level of noise."""
    shares = torch.tensor([0, 0.25, 0.6, 1])
    first, second = told(2.0, 0.3, 1.0, 0.4), told(-1.0, 0.3, 0.0, 0.4)
    weights = torch.stack([1 - shares, shares], 1)
    parts = tuple(part.expand(4) for part in (first, second))
    drawn = draw(Composed(parts, weights))
    for share, (x, y) in zip(shares.tolist(), drawn, strict=True):
        assert abs(x - flow(2.0 - 3 * share, 0.3)[0]) < 3e-3
        assert abs(y - flow(1.0 - share, 0.4)[1]) < 3e-3


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, -0.5), (0.3, 0.0), (2.0, -1.0)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_score_is_that_of_the_product_of_powers(weights, scale):
    """p(x) (p(x | c_1) / p(x))^(s w_1) (p(x | c_2) / p(x))^(s w_2), differentiated by hand."""
    rows = [(0.0, 1.0), (1.0, 0.5), (-0.7, 0.8)]
    parts = tuple(told(*row, *row) for row in rows[1:])
    guided = Composed(parts, torch.tensor([weights])).guidance(Guidance(scale, NULL))(denoiser)
    x = torch.linspace(-2, 2, 2).view(1, 2, 1, 1)
    for t in (50.0, 400.0, 800.0):
        level = COSINE.level(t)
        x0 = guided(x, torch.tensor([t]), parts[0])
        powers = (1 - scale * sum(weights), *(scale * weight for weight in weights))
        score = torch.zeros_like(x)
        for power, (mean, std) in zip(powers, rows, strict=True):
            variance = level.alpha**2 * std**2 + level.sigma**2
            score += power * (level.alpha * mean - x) / variance
        expected = (x + level.sigma**2 * score) / level.alpha  # Tweedie's formula
        torch.testing.assert_close(x0, expected, atol=1e-4, rtol=1e-4)


def test_rows_are_picked_with_their_weights():
    first, second = told(2.0, 0.3, 1.0, 0.4).expand(3), told(-1.0, 0.3, 0.0, 0.4).expand(3)
    composed = Composed((first, second), torch.arange(6.0).view(3, 2) / 5)
    assert len(composed[1:]) == 2
    both = draw(composed, steps=5)
    torch.testing.assert_close(both[1:], draw(composed[1:], steps=5))
    torch.testing.assert_close(both[[2]], draw(composed[[2]], steps=5))


def weaker(x, t, condition):
    """Another denoiser: of data twice as wide, whatever is asked for."""
    wide = condition.vector * torch.tensor([1.0, 2.0, 1.0, 2.0])
    return denoiser(x, t, Condition(vector=wide))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rescale": 0.7},
        {"interval": (0.5, 2.0), "schedule": COSINE},
        {"guide": weaker, "guide_scale": 1.8},
        {"rescale": 0.4, "guide": weaker, "guide_scale": 0.5, "interval": (0.5, 2.0)},
    ],
)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_of_one_prompt_everything_is_as_without_a_composition(scale, more):
    """And of the same prompt twice, with weights that add up to 1."""
    schedule = {"schedule": COSINE} if "interval" in more else {}
    how = Guidance(scale, NULL, **{**more, **schedule})
    asked, x = told(2.0, 0.3, -1.0, 0.4).expand(4), torch.randn(4, 2, 3, 3)
    for t in (100.0, 400.0, 500.0, 900.0):
        times = torch.full((4,), t)
        expected = how(denoiser)(x, times, asked)
        for parts, weights in (((asked,), [[1.0]]), ((asked, asked), [[0.3, 0.7]])):
            guided = Composed(parts, torch.tensor(weights).expand(4, -1)).guidance(how)
            torch.testing.assert_close(
                guided(denoiser)(x, times, asked), expected, atol=2e-5, rtol=1e-5
            )


def test_of_two_prompts_each_option_does_what_it_says():
    """With C = D_0 + .8 (D_1 - D_0) - .5 (D_2 - D_0) and its like of the guide, W."""
    parts = tuple(told(*row).expand(3) for row in ((2.0, 0.3, 1.0, 0.4), (-1.0, 0.6, 0.0, 1.0)))
    composed = Composed(parts, torch.tensor([[0.8, -0.5]]).expand(3, -1))
    x, t = torch.randn(3, 2, 3, 3), torch.full((3,), 500.0)

    def asked(network):
        d = [network(x, t, part) for part in (NULL.expand(3), *parts)]
        return d[0], d[0] + 0.8 * (d[1] - d[0]) - 0.5 * (d[2] - d[0])

    (d_0, c), (_, w) = asked(denoiser), asked(weaker)
    guided = d_0 + 2.5 * (c - d_0)
    dims = (1, 2, 3)
    narrower = guided * c.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    here = (-COSINE.lambda_(500.0)).exp().item()  # sigma / alpha
    ways = [
        ({}, guided),
        ({"rescale": 1.0}, narrower),
        ({"interval": (0.9 * here, 1.1 * here), "schedule": COSINE}, guided),
        ({"interval": (1.1 * here, 9.0), "schedule": COSINE}, c),
        ({"guide": weaker, "guide_scale": 1.6}, guided + 0.6 * (c - w)),
    ]
    for more, expected in ways:
        found = composed.guidance(Guidance(2.5, NULL, **more))(denoiser)(x, t, parts[0])
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
