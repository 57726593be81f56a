"""Chapter 8: the KL of two Gaussians, the size of latents, and what a wrong size does."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tinyldm import NoiseSchedule

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "08_latents.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


def test_the_kl_is_that_of_torch():
    mean, std = torch.randn(50).double(), torch.rand(50).double() + 0.1
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    torch.testing.assert_close(chapter.kl_to_normal(mean, std), expected)
    assert chapter.kl_to_normal(torch.zeros(1), torch.ones(1)) == 0


def test_the_statistics_are_those_of_latents_that_are_drawn():
    generator = torch.Generator().manual_seed(0)
    offset = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
    means = offset + torch.randn(40, 2, 5, 5, generator=generator)
    stds = 0.2 + torch.rand(40, 2, 5, 5, generator=generator)
    draws = means + stds * torch.randn(2000, *means.shape, generator=generator)
    mean, std = chapter.latent_statistics(means, stds)
    torch.testing.assert_close(mean, draws.mean((0, 1, 3, 4)), atol=3e-3, rtol=0)
    torch.testing.assert_close(std, draws.std((0, 1, 3, 4)), atol=3e-3, rtol=0)


@pytest.mark.parametrize("kind", ["cosine", "linear", "flow"])
@pytest.mark.parametrize("k", [0.2, 1, 4])
def test_the_schedule_has_the_log_snr_of_data_of_that_size(kind, k):
    given = NoiseSchedule(kind, shift=0.5)
    found = chapter.schedule_for(given, k)
    for t in (0, 250, 500, 998):
        before, after = given.level(t), found.level(t)
        assert after.alpha / after.sigma == pytest.approx(k * before.alpha / before.sigma)
