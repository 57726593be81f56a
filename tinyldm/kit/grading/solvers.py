"""The exercises ddim, ddpm and dpm-solver."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from .compare import MANY, compare, demand, level, normal, refused, stepped


def check_ddim() -> None:
    """Steps between two levels of known data: what is kept of x0, of eps, and what is fresh."""
    from tinyldm.diffusion.ddim import DDIM

    t, s = level(-0.5), level(0.4)
    x0, eps, noise = normal(MANY), normal(MANY, seed=1), normal(MANY, seed=2)
    x = t.alpha * x0 + t.sigma * eps
    got, history = stepped(DDIM(), x, x0, eps, now=t, nxt=s)
    mistakes = {
        "you took alpha and sigma at t, not at s": x,
        "you took sigma at t, not at s": s.alpha * x0 + t.sigma * eps,
        "you took alpha at t, not at s": t.alpha * x0 + s.sigma * eps,
        "alpha and sigma changed places": s.sigma * x0 + s.alpha * eps,
        "alpha and sigma are squared": s.alpha**2 * x0 + s.sigma**2 * eps,
        "alpha_bar, which is alpha^2, stands for alpha": s.alpha**2 * x0
        + math.sqrt(1 - s.alpha**4) * eps,
        "the noise is missing": s.alpha * x0,
        "you built on x_t, not on x0": s.alpha * x + s.sigma * eps,
    }
    compare("x_s", got, s.alpha * x0 + s.sigma * eps, mistakes)
    demand(history == (), f"your history is {history!r}, expected (): DDIM remembers nothing")
    rho = math.exp(t.lambda_ - s.lambda_)
    for eta in (1.0, 0.6):
        got, _ = stepped(DDIM(eta), x, x0, eps, now=t, nxt=s, noise=noise)
        fresh = eta**2 * (1 - rho**2)
        kept = s.alpha * x0 + s.sigma * math.sqrt(1 - fresh) * eps
        mistakes = {
            "eta does nothing": s.alpha * x0 + s.sigma * eps,
            "the fresh noise is added, but none of eps is taken away": s.alpha * x0
            + s.sigma * eps
            + s.sigma * math.sqrt(fresh) * noise,
            "the fresh noise has its variance for a factor, not the root": kept
            + s.sigma * fresh * noise,
        }
        expected = kept + s.sigma * math.sqrt(fresh) * noise
        compare(f"x_s with eta {eta:g}", got, expected, mistakes)
    refused(lambda: DDIM(1.0).step(x, x0, eps, now=t, nxt=s), "where eta > 0 has no noise")


def check_ddpm() -> None:
    """The posterior of two correlated Gaussians, found by regression; then the last step."""
    from tinyldm.diffusion.ddpm import DDPM
    from tinyldm.diffusion.schedule import CLEAN

    t, s = level(-0.5), level(0.4)
    x0, eps, noise = normal(MANY), normal(MANY, seed=1), normal(MANY, seed=2)
    x = t.alpha * x0 + t.sigma * eps
    # x_t = ratio x_s + fresh noise; so x_s given x_t and x0 by the rule for two Gaussians
    ratio = t.alpha / s.alpha
    gain = s.sigma**2 * ratio / t.sigma**2
    mean = s.alpha * x0 + gain * (x - t.alpha * x0)
    small = s.sigma**2 - gain * ratio * s.sigma**2
    large = small * (t.sigma / s.sigma) ** 2
    got, history = stepped(DDPM(), x, x0, eps, now=t, nxt=s, noise=noise)
    mistakes = {
        "the noise has its variance for a factor, not the root": mean + small * noise,
        "the noise is missing": mean,
        "the variance is the large one": mean + math.sqrt(large) * noise,
        "x_t is added to the mean, and none of x0 is taken away": mean
        + gain * t.alpha * x0
        + math.sqrt(small) * noise,
        "the mean is that without x_t": s.alpha * x0 + math.sqrt(small) * noise,
        "you added noise to DDIM's step": s.alpha * x0 + s.sigma * eps + math.sqrt(small) * noise,
    }
    compare("x_s", got, mean + math.sqrt(small) * noise, mistakes)
    demand(history == (), f"your history is {history!r}, expected (): DDPM remembers nothing")
    got, _ = stepped(DDPM("large"), x, x0, eps, now=t, nxt=s, noise=noise)
    mistakes = {"variance='large' does nothing": mean + math.sqrt(small) * noise}
    compare("x_s with the large variance", got, mean + math.sqrt(large) * noise, mistakes)
    got, _ = stepped(DDPM(), x, x0, eps, now=t, nxt=CLEAN, noise=None)
    compare("x_s on clean data, where it is x0", got, x0)
    refused(lambda: DDPM().step(x, x0, eps, now=t, nxt=s), "where a step has no noise")


def check_dpm_solver() -> None:
    """A run on Gaussian data, whose exact flow is known, at two numbers of steps."""
    from tinyldm.diffusion.dpm_solver import DPMSolver
    from tinyldm.diffusion.schedule import CLEAN

    t, s = level(-0.5), level(0.4)
    x0, eps = normal(1000), normal(1000, seed=1)
    x = t.alpha * x0 + t.sigma * eps
    got, history = stepped(DPMSolver(), x, x0, eps, now=t, nxt=s)
    compare("x_s of the first step", got, s.alpha * x0 + s.sigma * eps, {"it is x_t": x})
    remembered = "expected ((lambda_t, x0),) after the first step of order 2"
    demand(len(history) == 1, f"your history has {len(history)} entries, {remembered}")
    demand(abs(history[0][0] - t.lambda_) < 1e-6, f"your history has another lambda, {remembered}")
    compare("x0 in the history", history[0][1], x0)
    _, history = stepped(DPMSolver(1), x, x0, eps, now=t, nxt=s)
    demand(history == (), "your history of order 1 is not empty: it needs no earlier prediction")
    _, history = stepped(DPMSolver(), x, x0, eps, now=t, nxt=s, history=((-1.2, x0),))
    demand(len(history) == 1, f"your history has {len(history)} entries after the second step of 2")

    first, second = flow_error(DPMSolver(1), 40), flow_error(DPMSolver(1), 80)
    demand(first / second > 1.6, f"order 1 does not converge: errors {first:.1e}, {second:.1e}")
    few, many = flow_error(DPMSolver(), 40), flow_error(DPMSolver(), 80)
    demand(few < 0.1, f"your solver misses the exact solution by {few:.2g} after 40 steps")
    times = few / max(many, 1e-12)
    told = "a line through this prediction and the one before: is bend added, with its sign?"
    demand(
        times > 3.2,
        f"twice the steps divide your error by {times:.1f}, expected about 4 for second order, "
        f"which takes {told}",
    )
    last, _ = stepped(DPMSolver(), x, x0, eps, now=t, nxt=CLEAN, history=((-1.2, x0),))
    compare("x_s on clean data, where it is x0", last, x0)


def flow_error(solver: Any, steps: int) -> float:
    """How far a solver ends from the exact flow of N(0.5, 0.6^2), from lambda -2 to 2."""
    mean, std = 0.5, 0.6
    levels = [level(-2 + 4 * k / steps) for k in range(steps + 1)]

    def spread(at: Any) -> float:
        return math.hypot(at.alpha * std, at.sigma)

    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x = levels[0].alpha * mean + spread(levels[0]) * z
    history: tuple[Any, ...] = ()
    for now, nxt in pairwise(levels):
        gain = now.alpha * std**2 / spread(now) ** 2
        x0 = mean + gain * (x - now.alpha * mean)
        eps = (x - now.alpha * x0) / now.sigma
        x, history = solver.step(x, x0, eps, now=now, nxt=nxt, history=history)
    return float((x - levels[-1].alpha * mean - spread(levels[-1]) * z).abs().max())
