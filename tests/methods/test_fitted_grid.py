"""Fitted time grids: the dynamic programme against all paths, grids on data whose flow is known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.diffusion.unipc import UniPC
from tinyldm.methods.fitted_grid import (
    Runs,
    Trajectories,
    cheapest_paths,
    distance,
    fit,
    refined,
    remembering,
    step_costs,
)

MEANS = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.5, -1.1]], dtype=torch.float64)
STDS, WEIGHTS = torch.tensor([0.25, 0.4, 0.3]).double(), torch.tensor([0.3, 0.45, 0.25]).double()
SCHEDULES = {
    "cosine": NoiseSchedule(shift=0.5),
    "linear": NoiseSchedule("linear"),
    "flow": NoiseSchedule("flow"),
}


def best_x0(x, alpha, sigma):
    """E[x0 | x_t] of three Gaussians in the plane: x (b, 2)."""
    spread = alpha**2 * STDS**2 + sigma**2  # (3,)
    off = x[:, None] - alpha * MEANS  # (b, 3, 2)
    fit = WEIGHTS.log() - spread.log() - off.square().sum(2) / (2 * spread)
    answers = MEANS + (alpha * STDS**2 / spread)[:, None] * off
    return (fit.softmax(1)[:, :, None] * answers).sum(1)


def runs_on(schedule, n, seed):
    """Runs of the exact denoiser of the mixture."""

    def denoise(x, t, condition):
        level = schedule.level(t[0].item())
        return best_x0(x, level.alpha, level.sigma)

    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Runs(denoise, noise, schedule, "x0")


def exact_ends(runs):
    """Where the flow takes the noise, by scipy: with y = x / alpha and k = sigma / alpha it is
    dy/dk = (y - E[x0]) / k (2206.00364, eq. 1), from a start beyond which nothing happens."""
    first = runs.schedule.level(runs.schedule.timesteps - 1)
    k_first = first.sigma / first.alpha if first.alpha else 1e4  # from pure noise, y = k eps
    start = runs.noise / first.alpha if first.alpha else runs.noise * k_first

    def velocity(log_k, y):
        y, k = torch.from_numpy(y.reshape(-1, 2)), np.exp(log_k)
        return (y - best_x0(y, 1.0, k)).numpy().ravel()

    end = solve_ivp(
        velocity, (np.log(k_first), -12), start.numpy().ravel(), "DOP853", rtol=1e-9, atol=1e-9
    )
    return torch.from_numpy(end.y[:, -1].reshape(-1, 2))


# ---- the dynamic programme


@given(seed=st.integers(0, 10**6), levels=st.integers(2, 7))
def test_the_cheapest_path_is_the_cheapest_of_all_paths(seed, levels):
    random = np.random.default_rng(seed)
    costs = random.exponential(size=(levels + 1,) * 3)
    costs[random.random(costs.shape) < 0.1] = 0  # ties
    for g, i, j in itertools.product(range(levels + 1), repeat=3):
        if not (g < i < j or (g == i == 0 < j)):
            costs[g, i, j] = np.inf
    found = cheapest_paths(costs, levels)
    assert found.keys() == set(range(1, levels + 1))

    def total(path):
        steps = [(0, 0, path[1]), *zip(path, path[1:], path[2:], strict=False)]
        return sum(costs[step] for step in steps)

    for n, path in found.items():
        between = itertools.combinations(range(1, levels), n - 1)
        assert (path[0], path[-1], len(path)) == (0, levels, n + 1)
        assert total(path) == pytest.approx(min(total((0, *middle, levels)) for middle in between))


def test_the_cost_of_a_step_is_how_far_from_the_flow_it_ends():
    """On one Gaussian, N(0, 1/4), whose flow scales: x_t = spread(t) z. A step of DDIM, by hand."""
    schedule, z = NoiseSchedule(), torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    grid = schedule.grid(6)
    spread = [np.hypot(0.5 * level.alpha, level.sigma) for level in grid]
    gains = [0.25 * level.alpha / s**2 for level, s in zip(grid, spread, strict=True)]
    x = [s * z for s in spread]
    x0 = [gain * at for gain, at in zip(gains[:-1], x[:-1], strict=True)]
    costs = step_costs(DDIM(), Trajectories(grid, x, x0))
    size = z.abs().mean().item()
    for i, j in itertools.combinations(range(7), 2):
        eps = (1 - grid[i].alpha * gains[i]) / grid[i].sigma
        reached = (grid[j].alpha * gains[i] + grid[j].sigma * eps) * spread[i]
        for g in range(i) if i else [0]:
            assert costs[g, i, j] == pytest.approx(abs(reached - spread[j]) * size, abs=1e-12)
    assert np.isfinite(costs).sum() == 6 + 35  # one step from the start, and all triples


def test_a_step_that_remembers_one_before_costs_less():
    """DPM-Solver++ of second order, where steps are short: the costs are those of the solver."""
    runs = runs_on(NoiseSchedule(), 20, 0)
    seen = Trajectories.of(runs, 40)
    first, second = (step_costs(solver, seen) for solver in (DDIM(), DPMSolver(2)))
    assert second[0, 0, 1] == first[0, 0, 1]
    steps = [(i - 1, i, i + 1) for i in range(10, 30)]
    assert sum(second[s] for s in steps) < 0.5 * sum(first[s] for s in steps)


# ---- grids


@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        ("cosine", DPMSolver(2)),
        ("cosine", UniPC(3)),
        ("linear", DPMSolver(3)),
        ("flow", DPMSolver(2)),
        ("flow", UniPC(2)),
    ],
    ids=str,
)
def test_a_fitted_grid_comes_nearer_to_the_exact_flow(kind, solver):
    """For noise that it was not fitted to, by the end error from scipy's solution."""
    schedule = SCHEDULES[kind]
    fitted, judged = runs_on(schedule, 24, 1), runs_on(schedule, 200, 2)
    truth = exact_ends(judged)
    spacings = ["trailing", "linspace"] + ["karras"] * (kind != "flow")
    ratios = []
    for n, grid, _ in fit(fitted, solver, [4, 6, 8, 12], fine=48, rounds=5):
        assert len(grid) == n + 1
        assert grid[0] == schedule.grid(n)[0]
        assert all(a.sigma > b.sigma for a, b in itertools.pairwise(grid))
        ours = distance(judged.ends(solver, grid), truth)
        others = [distance(judged.ends(solver, schedule.grid(n, s)), truth) for s in spacings]
        ratios.append(ours / min(others))
    assert max(ratios) < 1
    assert np.prod(ratios) ** 0.25 < 0.8


def test_a_round_of_refinement_never_makes_it_worse_and_says_the_truth():
    runs = runs_on(SCHEDULES["cosine"], 16, 3)
    wanted = exact_ends(runs)
    grids = list(refined(runs, DPMSolver(2), runs.schedule.grid(5), wanted, 4))
    errors = [error for _, error in grids]
    assert len(errors) > 1
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    for grid, error in grids:
        assert grid[0] == runs.schedule.grid(5)[0]
        assert error == pytest.approx(distance(runs.ends(DPMSolver(2), grid), wanted))


def test_a_grid_of_one_step_has_nothing_to_choose():
    runs = runs_on(SCHEDULES["flow"], 4, 0)
    ((n, grid, _),) = fit(runs, DDIM(), [1], fine=8)
    assert (n, grid) == (1, runs.schedule.grid(1))


def test_what_was_asked_before_is_not_asked_again():
    asked = []
    denoiser = remembering(lambda x, t, c: asked.append(t[0].item()) or 2 * x)
    x, t = torch.ones(2, 3), torch.full((2,), 7.0)
    for what, times in ((x, 1), (x.clone(), 1), (x + 1, 2), (x, 3)):
        torch.testing.assert_close(denoiser(what, t, None), 2 * what)
        assert len(asked) == times
    denoiser(x, t + 1, None)
    assert asked == [7, 7, 7, 8]


@pytest.mark.parametrize(
    ("solver", "steps", "said"),
    [
        (DDPM(), [4], "adds no noise"),
        (DDIM(0.5), [4], "adds no noise"),
        (DDIM(), [], "1 to 8 steps"),
        (DDIM(), [9], "1 to 8 steps"),
        (DDIM(), [0], "1 to 8 steps"),
    ],
)
def test_what_cannot_be_fitted_is_refused(solver, steps, said):
    with pytest.raises(ValueError, match=said):
        list(fit(runs_on(NoiseSchedule(), 2, 0), solver, steps, fine=8))
