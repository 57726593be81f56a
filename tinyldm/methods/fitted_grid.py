"""A time grid fitted to a run: which n levels to visit with the very solver and guidance in use.

Fine runs of the sampler give, at N levels, what a grid of fewer levels ought to pass through: x_t
and the x0 that is seen there. Two steps lead from them to a grid.

1. The cost of a step from t to s, which started on the fine run and remembers one step before it,
   is how far from the fine run it ends. A dynamic programme finds the n levels whose costs have
   the smallest sum, for all n at once, as in GITS (2405.11326), which does so with Euler's steps;
   no further call of the denoiser is needed.
2. A sum of local errors is not the error at the end, since errors grow, shrink and cancel on the
   way. So Gauss and Newton move the levels, in lambda, to where the mean distance from the ends of
   the fine runs is least, starting at the grid of step 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.prediction import eps_of
from tinyldm.diffusion.sampler import Denoiser, Solver, sample
from tinyldm.diffusion.schedule import Grid, Level, NoiseSchedule

Costs = np.ndarray  # (N + 1, N + 1, N + 1): of a step from i to j after one from g to i
DAMPING = (0.01, 0.1, 1.0, 10.0, 100.0)  # the larger, the shorter a move


@dataclass(frozen=True, eq=False)
class Runs:
    """b runs of the sampler, of which only the solver and the grid are open.

    denoiser:  as sample() takes it, with its guidance
    noise:     (b, ...) to start from
    condition: b rows, or None
    """

    denoiser: Denoiser
    noise: Tensor
    schedule: NoiseSchedule
    prediction: str
    condition: Condition | None = None

    def ends(
        self,
        solver: Solver,
        grid: Grid,
        callback: Callable[[int, Tensor, Tensor], None] | None = None,
        denoiser: Denoiser | None = None,
    ) -> Tensor:
        """The x0 (b, ...) that the runs end with; denoiser: in place of the runs' own."""
        return sample(
            denoiser or self.denoiser,
            self.noise.shape,
            self.schedule,
            solver,
            condition=self.condition,
            prediction=self.prediction,
            spacing=grid,
            noise=self.noise,
            dtype=self.noise.dtype,
            callback=callback,
        )


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Fine runs: what they passed through at N levels, and where they ended.

    grid:   the N levels, and clean data
    x:      N + 1 tensors (b, ...): x_t, and at last the end
    x0:     N tensors (b, ...): the x0 seen at each level
    """

    grid: Grid
    x: list[Tensor]
    x0: list[Tensor]

    @staticmethod
    def of(runs: Runs, fine: int, solver: Solver | None = None) -> Trajectories:
        """The runs on a trailing grid of `fine` levels; solver: DPM-Solver++ by default."""
        grid = runs.schedule.grid(min(fine, runs.schedule.timesteps))
        x, x0 = [runs.noise], []

        def keep(step: int, x_s: Tensor, seen: Tensor) -> None:
            x.append(x_s)
            x0.append(seen)

        runs.ends(solver or DPMSolver(), grid, keep)
        return Trajectories(grid, x, x0)

    def at(self, count: int) -> Trajectories:
        """The same at `count` numbers of each row, evenly spread, which are enough for costs."""
        size = self.x[0][0].numel()
        chosen = torch.linspace(0, size - 1, min(count, size), device=self.x[0].device).long()
        thin = [[x.flatten(1)[:, chosen] for x in part] for part in (self.x, self.x0)]
        return Trajectories(self.grid, *thin)


def distance(x: Tensor, wanted: Tensor) -> float:
    """The mean over the rows of (b, ...) of their root mean square difference."""
    return (x - wanted).double().flatten(1).square().mean(1).sqrt().mean().item()


# ---- 1. costs, and the cheapest path


def step_costs(solver: Solver, seen: Trajectories) -> Costs:
    """c[g, i, j]: how far from the fine runs a step from level i to level j ends.

    It starts on the fine runs, with what the solver remembers of a step from g to i. c[0, 0, j] is
    for the first step, which remembers nothing; what makes no sense is inf. Of a solver that looks
    twice in a step it is the first look's.

    x_s is divided by sqrt(alpha^2 + sigma^2). Were the data N(0, I), an error of that size would be
    the one that is left of it at the end of the flow.
    """
    n = len(seen.grid) - 1
    eps = [eps_of(*each) for each in zip(seen.x0, seen.x[:n], seen.grid[:n], strict=True)]
    costs = np.full((n + 1, n + 1, n + 1), np.inf)

    def go(i: int, j: int, history: tuple[object, ...] = ()) -> tuple[Tensor, tuple[object, ...]]:
        return solver.step(
            seen.x[i], seen.x0[i], eps[i], now=seen.grid[i], nxt=seen.grid[j], history=history
        )

    for g in range(n):
        for i in range(g + 1, n + 1):
            x_i, history = go(g, i)
            if g == 0:
                costs[0, 0, i] = off(x_i, seen.x[i], seen.grid[i])
            for j in range(i + 1, n + 1):
                x_j, _ = go(i, j, history)
                costs[g, i, j] = off(x_j, seen.x[j], seen.grid[j])
    return costs


def off(x: Tensor, wanted: Tensor, level: Level) -> float:
    """The distance of x from where it ought to be, in units of the noise of pure noise."""
    return distance(x, wanted) / math.hypot(level.alpha, level.sigma)


def cheapest_paths(costs: Costs, most: int) -> dict[int, list[int]]:
    """For n = 1 to `most` steps, the levels 0 = i_0 < i_1 < ... < i_n = N with the least sum

        c[0, 0, i_1] + c[0, i_1, i_2] + c[i_1, i_2, i_3] + ... + c[i_(n-2), i_(n-1), i_n]

    Bellman's recursion over pairs: the cheapest k + 1 steps that end with one from i to j are the
    cheapest k that end with one from some g to i, and that step.
    """
    end = len(costs) - 1
    best = np.full((end + 1, end + 1), np.inf)  # [i, j]: of k steps that end with one from i to j
    best[0] = costs[0, 0]
    before: list[np.ndarray] = []  # the g of each [i, j], for k = 2, 3, ...
    found = {}
    for n in range(1, min(most, end) + 1):
        if n > 1:
            through = best[:, :, None] + costs  # [g, i, j]
            through[0, 0] = np.inf  # the first step comes once
            before.append(through.argmin(0))
            best = through.min(0)
        path = [end, int(best[:, end].argmin())]
        for choice in reversed(before):
            path.append(int(choice[path[-1], path[-2]]))
        found[n] = path[::-1]
    return found


# ---- 2. from the cheapest path to the least error at the end


def refined(
    runs: Runs, solver: Solver, grid: Grid, wanted: Tensor, rounds: int
) -> Iterator[tuple[Grid, float]]:
    """Grids of ever smaller distance between the ends of the runs and `wanted` (b, ...).

    Yields (grid, distance): what was given, and then one for each round that has made it smaller.
    The first level stays. A round of n steps costs about n (n / 2 + 2) calls of the denoiser.

    With the residuals r_k of each row and J_k, their derivatives by the lambda of each level, taken
    as differences, the move is the least-squares solution of J_k move = -r_k, each row weighted by
    1 / |r_k|, as it is |r_k| and not its square that counts; damped, after Levenberg and Marquardt.
    """
    error = distance(runs.ends(solver, grid), wanted)
    yield grid, error
    for _ in range(rounds if len(grid) > 2 else 0):
        denoiser = remembering(runs.denoiser)

        def residuals(levels: Grid, denoiser: Denoiser = denoiser) -> Tensor:
            ends = runs.ends(solver, levels, denoiser=denoiser)
            return (ends - wanted).double().flatten(1).cpu()

        lambdas = [level.lambda_ for level in grid[1:-1]]
        r = residuals(grid)  # (b, d)
        J = torch.empty(len(lambdas), *r.shape, dtype=torch.float64)
        for i in reversed(range(len(lambdas))):  # from the end, so that most calls are remembered
            h = small_move(grid, i + 1)
            moved = [*lambdas[:i], lambdas[i] + h, *lambdas[i + 1 :]]
            J[i] = (residuals(levels_at(moved, grid, runs.schedule)) - r) / h
        weight = 1 / r.norm(dim=1).clamp(min=1e-12)
        normal = torch.einsum("ibd,jbd,b->ij", J, J, weight)
        slope = torch.einsum("ibd,bd,b->i", J, r, weight)
        for damping in DAMPING:
            move = torch.linalg.solve(normal + damping * normal.diag().diag(), -slope).tolist()
            tried = [a + b for a, b in zip(lambdas, move, strict=True)]
            if not falls(tried, grid, runs.schedule):
                continue
            levels = levels_at(tried, grid, runs.schedule)
            now = distance(runs.ends(solver, levels), wanted)
            if now < error:
                grid, error = levels, now
                break
        else:
            return
        yield grid, error


def levels_at(lambdas: Sequence[float], grid: Grid, schedule: NoiseSchedule) -> Grid:
    """The first level of a grid, those at these lambdas, and clean data."""
    return schedule.levels([grid[0].t, *schedule.t_of_lambda(lambdas).tolist()])


def falls(lambdas: Sequence[float], grid: Grid, schedule: NoiseSchedule) -> bool:
    """Whether levels at these lambdas lie between the first one and t = 0, noise falling."""
    ends = [grid[0].lambda_, *lambdas, schedule.level(0.0).lambda_]
    apart = all(a + 1e-3 < b for a, b in pairwise(ends[:-1]))
    return apart and ends[-2] <= ends[-1]


def small_move(grid: Grid, i: int) -> float:
    """A move of level i, in lambda, for a difference in place of a derivative: towards t + 1, as
    there is room in that direction; a tenth of the shorter step beside it, at most 0.1."""
    beside = [b.lambda_ - a.lambda_ for a, b in pairwise(grid[i - 1 : i + 2])]
    return -min(0.1 * min(beside), 0.1)


def remembering(denoiser: Denoiser) -> Denoiser:
    """A denoiser that is not asked again what it was asked before, of the same x_t at the same t.

    Of each t it remembers the last x_t alone.
    """
    known: dict[float, tuple[Tensor, Tensor]] = {}

    def recall(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        key = t[0].item()
        if key not in known or not torch.equal(known[key][0], x_t):
            known[key] = x_t, denoiser(x_t, t, condition)
        return known[key][1]

    return recall


def fit(
    runs: Runs,
    solver: Solver,
    steps: Sequence[int],
    fine: int = 64,
    rounds: int = 4,
    trajectories: Trajectories | None = None,
) -> Iterator[tuple[int, Grid, float]]:
    """(n, grid of n levels, distance of the runs' ends from those of fine runs), for each n.

    solver:       a deterministic one; ValueError for one that adds noise, whose ends are no
                  function of the grid
    fine:         levels of the fine runs, and so from which the dynamic programme chooses
    rounds:       of refinement, at most
    trajectories: the fine runs, if they have been made already
    """
    if solver.stochastic:
        raise ValueError("a grid is fitted for a solver that adds no noise")
    most = min(fine, runs.schedule.timesteps)
    if not steps or not 1 <= min(steps) <= max(steps) <= most:
        raise ValueError(f"a grid is fitted for 1 to {most} steps")
    seen = trajectories or Trajectories.of(runs, most)
    paths = cheapest_paths(step_costs(solver, seen.at(512)), max(steps))
    for n in steps:
        starts = [tuple(seen.grid[i] for i in paths[n]), runs.schedule.grid(n)]
        errors = [distance(runs.ends(solver, grid), seen.x[-1]) for grid in starts]
        start = starts[errors.index(min(errors))]
        *_, (grid, error) = refined(runs, solver, start, wanted=seen.x[-1], rounds=rounds)
        yield n, grid, error
