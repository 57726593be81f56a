"""Solutions of chapter 4: the library's features, gradients, and Bayes' rule with full matrices."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyldm.nn.blocks import Sinusoidal

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "04_the_network.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


def test_features_are_those_of_the_library():
    t = torch.tensor([0.0, 0.5, 37.0, 999.0])
    torch.testing.assert_close(chapter.features(t, 96), Sinusoidal(96)(t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("delta", [0.0, 1.0, -37.5])
def test_one_matrix_turns_every_time(delta):
    t = torch.tensor([0.0, 3.0, 500.25, 998.0], dtype=torch.float64)
    R = chapter.turn(delta, 12)
    torch.testing.assert_close(chapter.features(t, 12) @ R.T, chapter.features(t + delta, 12))
    torch.testing.assert_close(R @ R.T, torch.eye(12, dtype=torch.float64))  # it only turns


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1)],
        [(3, 1), (3, 1)],
        [(3, 2), (3, 1)],
        [(5, 1), (3, 2), (1, 1), (3, 2), (3, 1)],
        [(3, 1), (3, 1), (3, 1), (3, 2), (3, 1), (3, 1), (3, 2), (3, 1), (3, 1)],
    ],
)
def test_a_gradient_reaches_as_far_as_the_view(layers):
    """Weights of ones and a long line: the places with a gradient are those that are seen."""
    line = torch.zeros(1, 1, 201, requires_grad=True)
    h = line
    for kernel, stride in layers:
        h = torch.nn.functional.conv1d(h, torch.ones(1, 1, kernel), stride=stride)
    h[0, 0, h.shape[-1] // 2].backward()
    seen = line.grad[0, 0].nonzero()
    assert int(seen.max() - seen.min()) + 1 == chapter.view(layers)


def test_what_the_chapter_asks_about_the_drawing():
    assert chapter.view(chapter.DOWN[:3]) == 7
    assert chapter.view(chapter.DOWN[:6]) == 17  # at 8x8
    assert chapter.view(chapter.DOWN) == 37  # at 4x4


@pytest.mark.parametrize(("alpha", "sigma"), [(0.99, 0.1), (0.5, 0.8), (0.1, 0.995)])
def test_wieners_filter_is_bayes_rule(alpha, sigma):
    """x0 ~ N(0, C) with a circulant C: E[x0 | x_t] = alpha C (alpha^2 C + sigma^2)^-1 x_t."""
    n = 12
    generator = torch.Generator().manual_seed(0)
    row = torch.tensor([1.0 / (1 + min(k, n - k) ** 2) for k in range(n)], dtype=torch.float64)
    C = torch.stack([row.roll(k) for k in range(n)])
    x_t = torch.randn(3, n, generator=generator, dtype=torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    expected = torch.linalg.solve(alpha**2 * C + sigma**2 * eye, alpha * x_t.T).T @ C
    spectrum = torch.fft.fft(row).real  # the eigenvalues of a circulant matrix
    torch.testing.assert_close(chapter.best_linear(x_t, spectrum, alpha, sigma), expected)
