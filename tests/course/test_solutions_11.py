"""Chapter 11: what image to image keeps, the way over the sphere, and where a flow ends."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyldm import DDIM, NoiseSchedule, sample
from tinyldm.methods.editing import begin
from tinyldm.methods.interpolation import slerp

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "11_editing_and_few_steps.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


def mean_of_x0(schedule, means, size):
    """The exact denoiser of equal parts of N(means[k], size^2), by Bayes' rule."""

    def denoiser(x_t, t, condition):
        level = schedule.level(float(t[0]))
        variance = level.alpha**2 * size**2 + level.sigma**2
        away = x_t - level.alpha * means  # (n, parts)
        weights = (-(away**2) / (2 * variance)).softmax(1)
        guesses = means + level.alpha * size**2 / variance * away
        return (weights * guesses).sum(1, keepdim=True)

    return denoiser


@pytest.mark.parametrize("strength", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("size", [1.0, 0.4])
def test_image_to_image_keeps_that_correlation(strength, size):
    schedule = NoiseSchedule("cosine")
    generator = torch.Generator().manual_seed(0)
    given = 0.5 + size * torch.randn(20_000, 1, generator=generator).double()
    grid, init = begin(given, schedule.grid(100), strength)
    drawn = sample(
        mean_of_x0(schedule, torch.tensor([0.5]), size),
        given.shape,
        schedule,
        DDIM(),
        prediction="x0",
        spacing=grid,
        init=init,
        noise=torch.randn(given.shape, generator=generator).double(),
        dtype=torch.float64,
    )
    found = torch.corrcoef(torch.cat([given, drawn], 1).T)[0, 1].item()
    assert found == pytest.approx(chapter.kept(grid[0], size), abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_way_is_that_of_the_library(share):
    a, b = torch.randn(2, 1, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    found = chapter.on_the_sphere(a, b, share)
    torch.testing.assert_close(found, slerp(a, b, torch.tensor([share])))
    straight = (1 - share) * a.norm() + share * b.norm()
    assert found.norm().item() == pytest.approx(straight.item(), rel=0.01)


def test_parallel_noises_are_no_trouble():
    a = torch.randn(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(chapter.on_the_sphere(a, 2 * a, 0.5), 1.5 * a)


@pytest.mark.parametrize("kind", ["cosine", "flow"])
def test_the_flow_ends_where_a_thousand_steps_end(kind):
    schedule, means, size = NoiseSchedule(kind), torch.tensor([-1.0, 0.2, 1.5]).double(), 0.3
    x = torch.linspace(-2, 2, 9).double()
    grid = schedule.grid(1000)[200:]
    drawn = sample(
        mean_of_x0(schedule, means, size),
        (9, 1),
        schedule,
        DDIM(),
        prediction="x0",
        spacing=grid,
        noise=x[:, None],
        dtype=torch.float64,
    )
    found = chapter.consistency_of_mixture(x, grid[0], means, size)
    torch.testing.assert_close(found, drawn[:, 0], atol=0.01, rtol=0)


def test_one_gaussian_has_the_closed_form():
    level = NoiseSchedule().level(600)
    x = torch.linspace(-2, 2, 9).double()
    spread = (level.alpha**2 * 0.4**2 + level.sigma**2) ** 0.5
    expected = 0.7 + 0.4 * (x - level.alpha * 0.7) / spread
    found = chapter.consistency_of_mixture(x, level, torch.tensor([0.7]), 0.4)
    torch.testing.assert_close(found, expected)
