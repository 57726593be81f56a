"""Solvers on a mixture of two Gaussians on a line, where the flow and every marginal are known
exactly.

The flow keeps quantiles (on a line it can't do otherwise), so the distribution function of the
mixture is the solution.
What a stochastic solver makes of the exact law of x_T is carried along as a density: no sampling,
no noise in the test.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from gaussian import log_snr_grid
from scipy.optimize import brentq
from scipy.special import ndtr

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import CLEAN, NoiseSchedule
from tinyldm.diffusion.unipc import UniPC

MEANS, STDS, WEIGHTS = np.array([-1.0, 0.8]), np.array([0.3, 0.45]), np.array([0.35, 0.65])


def parts(x, level):
    """Each component's density at x (k,), its mean and its standard deviation, at a level: (k, 2),
    (2,), (2,)."""
    mean, std = level.alpha * MEANS, np.hypot(level.alpha * STDS, level.sigma)
    z = (x[:, None] - mean) / std
    return WEIGHTS * np.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi)), mean, std


def cdf(x, level):
    """The distribution function of x_t."""
    _, mean, std = parts(np.zeros(1), level)
    return ndtr((np.asarray(x)[..., None] - mean) / std) @ WEIGHTS


def best_x0(x, level):
    """E[x0 | x_t]: the answers for the two components, each as probable as it explains x_t."""
    density, mean, std = parts(x, level)
    answers = MEANS + level.alpha * STDS**2 / std**2 * (x[:, None] - mean)
    return (density * answers).sum(1) / density.sum(1)


def denoiser(levels):
    """As sample() calls it; levels are found by their t."""
    table = {torch.tensor(level.t).item(): level for level in levels}

    def denoise(x, t, condition):
        return torch.from_numpy(best_x0(x.double().numpy().ravel(), table[t[0].item()])).view(
            x.shape
        )

    return denoise


def test_the_best_denoiser_is_the_mean_of_the_posterior():
    """By Bayes' rule, summed over a fine grid of x0."""
    level = log_snr_grid(3, -1.0, 2.0)[1]
    x0 = np.linspace(-4, 4, 4001)
    prior = (WEIGHTS * np.exp(-(((x0[:, None] - MEANS) / STDS) ** 2) / 2) / STDS).sum(1)
    for x in (-1.3, 0.0, 0.9):
        posterior = prior * np.exp(-(((x - level.alpha * x0) / level.sigma) ** 2) / 2)
        assert best_x0(np.array([x]), level)[0] == pytest.approx(
            (posterior * x0).sum() / posterior.sum(), abs=1e-9
        )


ODE = [
    DDIM(),
    *(DPMSolver(k, form=form) for k in (1, 2, 3) for form in ("x0", "eps")),
    DPMSolver(2, midpoint=False),
    Heun(),
    *(UniPC(k) for k in (1, 2)),
]


def order_of(solver):
    """UniPC's corrector adds one to the order of its predictor."""
    if isinstance(solver, DPMSolver):
        return solver.order + isinstance(solver, UniPC)
    return 2 if isinstance(solver, Heun) else 1


def error_on(solver, grid, schedule=None):
    """The root mean square distance from where the flow takes some quantiles of the mixture from
    the first level of a grid to its last."""
    quantiles = np.array([0.02, 0.2, 0.33, 0.4, 0.7, 0.97])
    x_T, truth = (
        [
            brentq(lambda x, level=level, q=q: cdf(x, level) - q, -9, 9, xtol=1e-13)
            for q in quantiles
        ]
        for level in (grid[0], grid[-1])
    )
    x = sample(
        denoiser(grid),
        (len(quantiles), 1),
        schedule or NoiseSchedule(),
        solver,
        prediction="x0",
        spacing=grid,
        noise=torch.tensor(x_T)[:, None],
        dtype=torch.float64,
    )
    return np.sqrt(np.mean((x[:, 0].numpy() - truth) ** 2))


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("solver", ODE, ids=str)
def test_pitfall_06_convergence_to_the_flow_of_the_mixture(solver, straight):
    steps = np.array([80, 160, 320])
    errors = [error_on(solver, log_snr_grid(n, -4.0, 3.0, straight)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order_of(solver), abs=0.2)


NOISE = [NoiseSchedule("flow"), NoiseSchedule(zero_snr=True)]


@pytest.mark.parametrize("schedule", [NoiseSchedule(), NoiseSchedule("linear"), *NOISE], ids=str)
@pytest.mark.parametrize("solver", [DDIM(), DPMSolver(2), DPMSolver(3), UniPC(2)], ids=str)
def test_every_solver_keeps_its_order_on_the_grid_of_even_lambdas(solver, schedule):
    """From the last level of training to the first, also where the last is pure noise and the first
    step is no step of the solver's order; by the length of the later steps."""
    lengths, errors = [], []
    for n in (80, 160, 320):
        grid = schedule.grid(n, "logsnr")[:-1]  # clean data would be one step more, of first order
        errors.append(error_on(solver, grid, schedule))
        lengths.append(grid[-1].lambda_ - grid[-2].lambda_)
    slope = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert slope == pytest.approx(order_of(solver), abs=0.2)


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize(
    "solver", [DDPM(), DDPM("large"), DDIM(1.0), DDIM(0.5), DPMSolver(1, sde=True)], ids=str
)
def test_pitfall_06_convergence_to_the_marginals_of_the_mixture(solver, straight):
    """The law of x_s from the law of x_t: x_s = a(x_t) + b z, summed over x_t. Its error is of
    first order."""
    x, dx = np.linspace(-5, 5, 401, retstep=True)
    x_t, steps, errors = torch.from_numpy(x), np.array([20, 40, 80]), []
    for n in steps:
        grid = log_snr_grid(n, -4.0, 1.5, straight)
        law = parts(x, grid[0])[0].sum(1)
        for now, nxt in itertools.pairwise(grid):
            x0 = torch.from_numpy(best_x0(x, now))
            eps = (x_t - now.alpha * x0) / now.sigma
            a, moved = (
                solver.step(x_t, x0, eps, now, nxt, (), torch.full_like(x_t, z))[0]
                for z in (0.0, 1.0)
            )
            b = (moved - a).numpy()
            law = (
                np.exp(-(((x[:, None] - a.numpy()) / b) ** 2) / 2)
                / (b * math.sqrt(2 * math.pi))
                @ law
                * dx
            )
        errors.append(np.abs(law - parts(x, nxt)[0].sum(1)).sum() * dx)
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert law.sum() * dx == pytest.approx(1, abs=1e-4)
    assert errors[-1] < 0.1
    assert slope == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "solver", [DPMSolver(2), DPMSolver(2, sde=True), DPMSolver(3, sde=True)], ids=str
)
def test_samples_of_the_default_grid_follow_the_mixture(solver):
    schedule, n = NoiseSchedule(), 4000
    best = denoiser(schedule.levels(range(999, -1, -1)))
    x = sample(best, (4, n // 4), schedule, solver, 60, prediction="x0", seeds=range(4))
    distance = np.abs(cdf(np.sort(x.numpy().ravel()), CLEAN) - (np.arange(n) + 0.5) / n).max()
    assert distance < 1.63 / math.sqrt(
        n
    )  # Kolmogorov and Smirnov's 1 % of draws of the mixture itself
