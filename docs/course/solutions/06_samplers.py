"""Solutions of chapter 6, Samplers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import expm1

from torch import Tensor

from tinyldm.diffusion.schedule import Level


def bracket(h: float) -> float:
    """h - 1 + e^-h, nearly h^2 / 2 in a short step: expm1 never forms the 1 that would swamp it."""
    return h + expm1(-h)


def linear_step(
    x: Tensor, m_0: Tensor, m_1: Tensor, *, now: Level, nxt: Level, before: Level
) -> Tensor:
    """Exercise 1: x_s, with the guess on the line through m_1 at before and m_0 at now."""
    h, h_1 = nxt.lambda_ - now.lambda_, now.lambda_ - before.lambda_
    constant = nxt.sigma / now.sigma * x - nxt.alpha * expm1(-h) * m_0
    return constant + nxt.alpha * bracket(h) * (m_0 - m_1) / h_1


def corrected(x_t: Tensor, m_0: Tensor, m_s: Tensor, now: Level, nxt: Level) -> Tensor:
    """Exercise 2: x_s once more, now that the guess m_s at its end is known."""
    h = nxt.lambda_ - now.lambda_
    constant = nxt.sigma / now.sigma * x_t - nxt.alpha * expm1(-h) * m_0
    return constant + nxt.alpha * bracket(h) * (m_s - m_0) / h


def into_noise(
    guess: Callable[[Tensor, Level], tuple[Tensor, Tensor]], x: Tensor, levels: Sequence[Level]
) -> Tensor:
    """Exercise 3: DDIM through levels of growing noise, from x at the first to the last.

    guess: (x_t, level) -> (x0, eps)

    Drawing from that noise gives x back, but for DDIM's error: each step trusts the guess where it
    starts, and the step back starts at its other end. Half as long, they are half as far off.
    """
    for now, nxt in pairwise(levels):
        x0, eps = guess(x, now)
        x = nxt.alpha * x0 + nxt.sigma * eps
    return x
