"""Chapter 10: the Fréchet distance, its bias, and the interval of a share."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyldm.scores.distances import frechet, statistics

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "10_scoring.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


def of_rows(x):
    return x.mean(0), torch.cov(x.T)


def test_the_distance_is_that_of_the_library():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 5, generator=generator).double()
    a = torch.randn(40, 5, generator=generator).double()
    b = torch.randn(30, 5, generator=generator).double() @ mix + 0.3
    expected = frechet(statistics(a), statistics(b))
    assert chapter.frechet_distance(*of_rows(a), *of_rows(b)) == pytest.approx(expected)


def test_the_distance_of_gaussians_along_the_axes_is_that_of_their_widths():
    wide, narrow = torch.tensor([4.0, 9.0]).double(), torch.tensor([1.0, 0.25]).double()
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    found = chapter.frechet_distance(zero, wide.diag(), one, narrow.diag())
    assert found == pytest.approx(2 + (2 - 1) ** 2 + (3 - 0.5) ** 2)


@pytest.mark.parametrize(("d", "n"), [(4, 400), (16, 1600)])
def test_equal_gaussians_are_that_far_apart(d, n):
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        a, b = torch.randn(2, n, d, generator=generator)
        found.append(frechet(statistics(a), statistics(b)))
    found = torch.tensor(found)
    error = found.std().item() / math.sqrt(len(found))
    expected = chapter.frechet_bias(d, n)
    assert abs(found.mean().item() - expected) < 3 * error + 0.02 * expected


@pytest.mark.parametrize(("right", "n"), [(190, 200), (5, 9), (0, 20), (20, 20)])
def test_the_ends_of_the_interval_are_z_deviations_away(right, n):
    z, seen = 1.96, right / n
    low, high = chapter.wilson(right, n, z)
    assert 0 <= low <= seen + 1e-12
    assert seen - 1e-12 <= high <= 1
    for end, extreme in ((low, 0), (high, 1)):
        if seen != extreme:
            assert abs(seen - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n))
        else:
            assert end == pytest.approx(extreme, abs=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.9, 0.97])
def test_the_truth_lies_in_the_interval_nineteen_times_of_twenty(p):
    """The exact probability, summed over all that may be seen of 200 pictures."""
    n, covered = 200, 0.0
    for right in range(n + 1):
        low, high = chapter.wilson(right, n)
        if low <= p <= high:
            covered += math.comb(n, right) * p**right * (1 - p) ** (n - right)
    assert covered == pytest.approx(0.95, abs=0.02)
