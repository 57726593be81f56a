"""Solutions of chapter 7: sums for integrals, a denoiser that counts, and Bayes' rule."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal

from tinyldm import Condition, Guidance, NoiseSchedule, sample

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "07_guidance.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


@pytest.mark.parametrize("w", [0.0, 1.0, 2.5, 8.0])
def test_the_product_of_two_gaussians(w):
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    log_p = w * Normal(1.0, 0.5).log_prob(x) + (1 - w) * Normal(-0.5, 1.5).log_prob(x)
    p = (log_p - log_p.max()).exp()
    mean = (p * x).sum() / p.sum()
    std = ((p * (x - mean) ** 2).sum() / p.sum()).sqrt()
    got = chapter.tilted(1.0, 0.5, -0.5, 1.5, w)
    assert got == pytest.approx((mean.item(), std.item()), rel=1e-6)


def test_a_wide_class_has_no_product():
    with pytest.raises(ValueError, match="no density"):
        chapter.tilted(1.0, 2.0, 0.0, 1.0, 3.0)


@pytest.mark.parametrize("interval", [None, (0.3, 3.0), (0.0, 0.5), (5.0, 1e9)])
@pytest.mark.parametrize("kind", ["cosine", "linear", "flow"])
def test_the_bill_is_what_is_counted(kind, interval):
    schedule = NoiseSchedule(kind)
    rows = []

    def counting(x_t, t, condition):
        rows.append(len(x_t))
        return x_t * 0

    null = Condition(vector=torch.zeros(1, 1))
    guidance = Guidance(3.0, null, interval=interval, schedule=schedule if interval else None)
    how = {"condition": Condition(vector=torch.ones(1, 1)), "guidance": guidance, "seeds": [0]}
    sample(counting, (1, 2), schedule, steps=13, **how)
    assert chapter.rows_of_a_picture(schedule, 13, interval) == sum(rows)


@pytest.mark.parametrize("w", [1.0, 3.0])
@pytest.mark.parametrize("t", [50.0, 500.0, 900.0])
def test_a_perfect_classifier_is_classifier_free_guidance(w, t):
    """Two classes, N(-1, 0.5^2) and N(0.8, 0.3^2), as frequent as each other: all is known."""
    schedule = NoiseSchedule()
    level = schedule.level(t)
    means = torch.tensor([-1.0, 0.8], dtype=torch.float64)
    variances = torch.tensor([0.25, 0.09], dtype=torch.float64)
    totals = level.alpha**2 * variances + level.sigma**2

    def log_classes(x):  # (b, 1) -> (b, 2): log p(c | x_t)
        return Normal(level.alpha * means, totals.sqrt()).log_prob(x).log_softmax(1)

    def of_classes(x):  # (b, 2): E[x0 | x_t, c]
        return means + level.alpha * variances / totals * (x - level.alpha * means)

    def of_none(x, t, condition):
        return (log_classes(x).exp() * of_classes(x)).sum(1, keepdim=True)

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    times = torch.full((9,), t, dtype=torch.float64)
    guided = chapter.with_classifier(of_none, lambda x, t: log_classes(x)[:, 1], w, schedule)
    null = of_none(x, times, None)
    expected = null + w * (of_classes(x)[:, 1:] - null)
    torch.testing.assert_close(guided(x, times, None), expected, rtol=1e-4, atol=1e-4)
