"""Inversion against the exact flow of a mixture of two Gaussians on a line, and there and back."""

import numpy as np
import pytest
import torch
from gaussian import log_snr_grid
from scipy.optimize import brentq
from test_mixture import ODE, cdf, denoiser, order_of

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import CLEAN, NoiseSchedule
from tinyldm.diffusion.unipc import UniPC
from tinyldm.methods.editing import invert

FIRST, LAST = -4.0, 3.0
QUANTILES = (0.02, 0.2, 0.33, 0.4, 0.7, 0.97)


def at(quantile, level):
    """Where the flow of this quantile passes a level."""
    return brentq(lambda x: cdf(x, level) - quantile, -9, 9, xtol=1e-13)


def points(level):
    return torch.tensor([[at(q, level)] for q in QUANTILES], dtype=torch.float64)


def order_up(solver):
    """That of the solver. The first step of a multistep method has no history: its error is of
    second order, unless UniPC corrects it. Going down, it hardly counts, as x0 is nearly the same
    at the first levels of noise."""
    if isinstance(solver, DPMSolver) and not isinstance(solver, UniPC):
        return min(order_of(solver), 2)
    return order_of(solver)


@pytest.mark.parametrize(
    ("solver", "straight"), [*((s, False) for s in ODE), (DDIM(), True), (Heun(), True)], ids=str
)
def test_the_way_up_and_the_way_back_are_of_the_solvers_order(solver, straight):
    """Up: to where the exact flow comes from. Up and down again: to the start, where errors of
    second order cancel, as the step of the one is minus the step of the other."""
    begin, end = log_snr_grid(1, FIRST, LAST, straight)
    start, truth, steps = points(end), points(begin), np.array([80, 160, 320])
    up, back = [], []
    for n in steps:
        grid = log_snr_grid(n, FIRST, LAST, straight)
        how = {"condition": None, "prediction": "x0"}
        x_T = invert(denoiser(grid), start, NoiseSchedule(), grid, solver, **how)
        up.append((x_T - truth).square().mean().sqrt())
        again = sample(
            denoiser(grid),
            start.shape,
            NoiseSchedule(),
            solver,
            spacing=grid,
            noise=x_T,
            dtype=torch.float64,
            **how,
        )
        back.append((again - start).square().mean().sqrt())
    slope_up, slope_back = (-np.polyfit(np.log(steps), np.log(e), 1)[0] for e in (up, back))
    assert slope_up == pytest.approx(order_up(solver), abs=0.3)
    assert slope_back > order_up(solver) - 0.1
    assert back[-1] < 0.02


@pytest.mark.parametrize("spacing", ["trailing", "leading", "karras"])
def test_clean_data_is_taken_for_the_least_noise(spacing):
    """The network is never asked about a t that it was not trained with, or twice about one."""
    schedule = NoiseSchedule()
    exact, asked = denoiser(schedule.levels(range(999, -1, -1))), []

    def denoise(x, t, condition):
        asked.append(t[0].item())
        return exact(x, t.round(), condition)

    grid = schedule.grid(20, spacing)
    invert(denoise, points(CLEAN), schedule, grid, DDIM(), prediction="x0")
    assert asked[0] == 0
    assert asked == sorted(set(asked))
    assert set(asked[1:]) == {torch.tensor(level.t).item() for level in grid[1:-1] if level.t > 0}


def test_there_and_back_with_the_grid_that_pictures_are_drawn_with():
    """From clean data to pure noise: with the straight path, alpha is 0 at the top."""
    schedule = NoiseSchedule("flow")
    exact = denoiser(schedule.levels(range(999, -1, -1)))
    start, errors = points(CLEAN), []
    for n in (50, 100, 200):
        grid = schedule.grid(n)
        x_T = invert(exact, start, schedule, grid, DDIM(), prediction="x0")
        again = sample(
            exact,
            start.shape,
            schedule,
            DDIM(),
            spacing=grid,
            prediction="x0",
            noise=x_T,
            dtype=torch.float64,
        )
        errors.append((again - start).abs().max().item())
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.02


@pytest.mark.parametrize("solver", [DDPM(), DDIM(0.5), DPMSolver(sde=True)], ids=str)
def test_a_solver_that_draws_noise_is_refused(solver):
    schedule = NoiseSchedule()
    with pytest.raises(ValueError, match="draws noise"):
        invert(lambda x, t, c: x, torch.zeros(1, 1), schedule, schedule.grid(3), solver)
