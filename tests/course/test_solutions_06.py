"""Solutions of chapter 6: sums for integrals, the library's solvers, and a known flow."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tinyldm import DDIM, DPMSolver
from tinyldm.diffusion.schedule import Level
from tinyldm.diffusion.unipc import UniPC

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "06_samplers.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))

BEFORE, NOW, NXT = (Level.of_sigma(0.0, math.exp(-v)) for v in (-1.3, -0.5, 0.4))


def drawn(n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 7, generator=generator, dtype=torch.float64)


def test_the_line_is_integrated():
    """Equation (1), its integral summed over 20,000 points."""
    x, m_0, m_1 = drawn(3)
    lambdas = torch.linspace(NOW.lambda_, NXT.lambda_, 20_001, dtype=torch.float64)[:, None]
    slope = (m_0 - m_1) / (NOW.lambda_ - BEFORE.lambda_)
    line = m_0 + (lambdas - NOW.lambda_) * slope
    integral = torch.trapezoid(lambdas.exp() * line, lambdas, dim=0)
    expected = NXT.sigma / NOW.sigma * x + NXT.sigma * integral
    got = chapter.linear_step(x, m_0, m_1, now=NOW, nxt=NXT, before=BEFORE)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_the_line_is_that_of_the_library_without_its_midpoint():
    x0, x0_before, eps = drawn(3)
    x = NOW.alpha * x0 + NOW.sigma * eps
    history = ((BEFORE.lambda_, x0_before),)
    expected, _ = DPMSolver(2, midpoint=False).step(x, x0, eps, NOW, nxt=NXT, history=history)
    got = chapter.linear_step(x, x0, x0_before, now=NOW, nxt=NXT, before=BEFORE)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("h", [1e-6, 1e-3, 1.0])
def test_the_bracket_is_right_for_short_steps(h):
    """Its series, h^2 / 2 - h^3 / 6 + ..., with as many terms as it takes."""
    series = sum((-h) ** k / math.factorial(k) for k in range(2, 20))
    assert chapter.bracket(h) == pytest.approx(series, rel=1e-8)


def test_the_correction_is_that_of_unipc():
    """Two steps of the library's; the second begins by correcting where the first one led."""
    solver = UniPC(1, midpoint=False)
    x0, eps, x0_s = drawn(3)
    x = BEFORE.alpha * x0 + BEFORE.sigma * eps
    x_s, history = solver.step(x, x0, eps, BEFORE, nxt=NOW)
    eps_s = (x_s - NOW.alpha * x0_s) / NOW.sigma
    after, _ = solver.step(x_s, x0_s, eps_s, NOW, nxt=NXT, history=history)
    got = chapter.corrected(x, x0, x0_s, BEFORE, NOW)
    eps_s = (got - NOW.alpha * x0_s) / NOW.sigma
    expected, _ = DDIM().step(got, x0_s, eps_s, NOW, nxt=NXT)
    torch.testing.assert_close(after, expected)


def test_into_noise_follows_the_flow_and_comes_back():
    """x0 ~ N(0, 0.5^2): the flow keeps x in proportion to its spread. DDIM's error has order 1."""

    def spread(level):
        return math.hypot(0.5 * level.alpha, level.sigma)

    def guess(x, level):
        x0 = level.alpha * 0.25 / spread(level) ** 2 * x
        return x0, (x - level.alpha * x0) / level.sigma

    errors = []
    for n in (100, 200):
        levels = [Level.of_sigma(0.0, math.exp(-v)) for v in np.linspace(3, -3, n + 1)]
        x = torch.tensor([0.7, -1.1], dtype=torch.float64)
        noise = chapter.into_noise(guess, x, levels)
        exact = x * spread(levels[-1]) / spread(levels[0])
        back = chapter.into_noise(guess, noise, levels[::-1])  # DDIM's step knows no direction
        errors.append([(noise - exact).abs().max().item(), (back - x).abs().max().item()])
    assert max(errors[0]) < 0.05
    assert np.array(errors[0]) / np.array(errors[1]) == pytest.approx([2, 2], rel=0.15)
