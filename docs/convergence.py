"""Draws docs/convergence.png, every solver's error against its calls of the network.

The data is a monster drawn with round dots of noise, a mixture of Gaussians in the plane. Its
optimal denoiser is a formula, so all error is the solver's. Needs matplotlib and scipy; takes half
a minute.

    python docs/convergence.py
"""

import itertools
import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy.integrate import solve_ivp

from tinyldm import DDIM, DDPM, DPMSolver, NoiseSchedule, sample
from tinyldm.diffusion.schedule import Level

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, NullLocator

DOT = 0.035  # the standard deviation of a dot
SCHEDULE = NoiseSchedule("cosine")
CLOUD = 10_000  # points of the right-hand plot
CALLS = (5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320)
ODE = {
    "DDIM": (DDIM(), "#e6550d", "-"),
    "DPM-Solver 2": (DPMSolver(2, form="eps"), "#3182bd", "--"),
    "DPM-Solver++ 2": (DPMSolver(2), "#3182bd", "-"),
    "DPM-Solver 3": (DPMSolver(3, form="eps"), "#6a3d9a", "--"),
    "DPM-Solver++ 3": (DPMSolver(3), "#6a3d9a", "-"),
}
SDE = {
    "DDPM": (DDPM(), "#636363", "-"),
    "DDPM, large variance": (DDPM("large"), "#636363", "--"),
    "SDE-DPM-Solver++ 2": (DPMSolver(2, sde=True), "#31a354", "-"),
    "SDE-DPM-Solver++ 3": (DPMSolver(3, sde=True), "#31a354", "--"),
}


def monster() -> np.ndarray:
    """The dots (k, 2), evenly spaced along the strokes of a drawing, with mean 0 and variance 1."""

    def arc(centre, radii, start=0.0, end=360.0):
        x, y = centre
        rx, ry = radii
        a = np.radians(np.linspace(start, end, 400))
        return np.stack([x + rx * np.cos(a), y + ry * np.sin(a)], 1)

    def line(*corners):
        return np.concatenate([np.linspace(a, b, 200) for a, b in itertools.pairwise(corners)])

    strokes = [
        arc((0, 0), (1.0, 1.05), -62, 242),  # head and body
        line((-0.62, 0.85), (-0.85, 1.55), (-0.28, 1.02)),
        line((0.62, 0.85), (0.85, 1.55), (0.28, 1.02)),  # horns
        arc((-0.38, 0.28), (0.26, 0.30)),
        arc((0.38, 0.28), (0.26, 0.30)),  # eyes
        arc((-0.32, 0.24), (0.07, 0.09)),
        arc((0.44, 0.24), (0.07, 0.09)),  # pupils
        arc((0, -0.22), (0.55, 0.36), 190, 350),  # mouth
        line((-0.22, -0.565), (-0.14, -0.40), (-0.06, -0.575)),  # a tooth
        line((-0.47, -0.93), (-0.47, -1.35), (-0.75, -1.35)),
        line((0.47, -0.93), (0.47, -1.35), (0.75, -1.35)),  # legs
        line((-0.97, -0.15), (-1.45, 0.20)),
        line((0.97, -0.15), (1.45, 0.55)),  # arms, one of them waves
    ]
    dots = []
    for stroke in strokes:
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
        even = np.linspace(0, length[-1], max(2, round(length[-1] / 0.075)))
        dots.append(np.stack([np.interp(even, length, stroke[:, i]) for i in range(2)], 1))
    dots = np.concatenate(dots)
    return (dots - dots.mean(0)) / dots.std()


DOTS = monster()


def best_x0(x, level):
    """E[x0 | x_t] of the mixture: the answer of each dot, weighted by how well it explains x_t."""
    dots = torch.as_tensor(DOTS, dtype=x.dtype)
    variance = level.alpha**2 * DOT**2 + level.sigma**2
    fit = (
        level.alpha * x @ dots.T - 0.5 * level.alpha**2 * dots.square().sum(1)
    ) / variance  # (b, k)
    mean = fit.softmax(1) @ dots
    return mean + level.alpha * DOT**2 / variance * (x - level.alpha * mean)


def run(solver, grid, x, dtype=torch.float32):
    """sample() from x (n, 2) with the optimal denoiser. All points are one sample."""
    level_of = {torch.tensor(level.t).item(): level for level in grid}
    return sample(
        lambda x, t, condition: best_x0(x[0], level_of[t[0].item()])[None],
        (1, *x.shape),
        SCHEDULE,
        solver,
        prediction="x0",
        spacing=grid,
        noise=x[None],
        seeds=[1],
        dtype=dtype,
    )[0]


def log_snr_grid(n, first=-5.0, last=4.5):
    """n steps of equal length in lambda."""
    lambdas = np.linspace(first, last, n + 1)
    return tuple(Level.of_sigma(float(n - i), math.exp(-v)) for i, v in enumerate(lambdas))


def exact_flow(start):
    """Where the flow really takes the start, by scipy.

    This is the probability flow dy/ds = (y - E[x0]) / s of 2206.00364, eq. 1 and 3, solved over
    log s, with y = x / alpha and s = sigma / alpha.
    """
    first, last = log_snr_grid(1)

    def velocity(log_s, y):
        level = Level.of_sigma(0.0, math.exp(log_s))
        y = torch.from_numpy(y.reshape(-1, 2))
        return (y - best_x0(level.alpha * y, level)).numpy().ravel()

    end = solve_ivp(
        velocity,
        (-first.lambda_, -last.lambda_),
        (start / first.alpha).numpy().ravel(),
        "DOP853",
        rtol=1e-9,
        atol=1e-9,
    ).y[:, -1]
    return last.alpha * torch.from_numpy(end.reshape(-1, 2))


def from_all_sides(points):
    """The points (n, 2) as seen from 32 sides, sorted: (n, 32)."""
    angles = torch.arange(32) * math.pi / 32
    return (points @ torch.stack([angles.cos(), angles.sin()])).sort(0)[0]


def draws(n, seed):
    """n points (n, 2) of the data itself."""
    g = torch.Generator().manual_seed(seed)
    dots = torch.as_tensor(DOTS, dtype=torch.float32)[torch.randint(len(DOTS), (n,), generator=g)]
    return dots + DOT * torch.randn(n, 2, generator=g)


def normal(n, seed=0):
    """n points (n, 2) of pure noise."""
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def pictures(grid_spec):
    """What the same 5,000 points of noise become on the default grid.

    The rows are solvers, the columns numbers of network calls.
    """
    calls, start = (5, 7, 10, 14, 20, 40), normal(5000)
    hue = torch.atan2(start[:, 1], start[:, 0])  # a point keeps the colour of where it started
    rows = {
        name: (ODE | SDE)[name] for name in ("DDPM", "DDIM", "DPM-Solver++ 2", "SDE-DPM-Solver++ 2")
    }
    axes = grid_spec.subgridspec(len(rows), len(calls), wspace=0, hspace=0).subplots()
    for row, (name, (solver, colour, _)) in zip(axes, rows.items(), strict=True):
        for axis, n in zip(row, calls, strict=True):
            x = run(solver, SCHEDULE.grid(n), start)
            axis.scatter(*x.T, c=hue, cmap="hsv", s=0.8, lw=0, alpha=0.8, rasterized=True)
            axis.set(xlim=(-2.25, 2.25), ylim=(-2.5, 2.5), xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(
            name.replace("Solver", "\nSolver"), fontsize=10, color=colour, fontweight="bold"
        )
    for axis, n in zip(axes[0], calls, strict=True):
        axis.set_title(f"{n} calls", fontsize=11)


def flow_errors():
    """The median distance of a point's end from where the exact flow takes it."""
    start = normal(200).double()
    truth = exact_flow(start)
    return {
        name: [
            (run(solver, log_snr_grid(n), start, torch.float64) - truth).norm(dim=1).median().item()
            for n in CALLS
        ]
        for name, (solver, _, _) in ODE.items()
    }


def cloud_errors():
    """Sliced Wasserstein distances from the data: of samples, and of as many draws of the data."""
    few, start = [k for k in CALLS if k < 60], normal(CLOUD)
    truth = from_all_sides(draws(20 * CLOUD, 1)).view(CLOUD, 20, 32).mean(1)

    def distance(points):
        return (from_all_sides(points) - truth).square().mean().sqrt().item()

    found = {
        name: [distance(run(solver, SCHEDULE.grid(k), start)) for k in few]
        for name, (solver, _, _) in (ODE | SDE).items()
    }
    return found, distance(draws(CLOUD, 2))


def slope(axis, x, y, order):
    """A triangle whose long side falls as 1 / n^order, its corner at (x, y)."""
    far = 2 * x
    axis.plot([x, far, far, x], [y, y, y / 2**order, y], color="0.45", lw=1)
    axis.annotate(
        f"slope {order}",
        (far, y / 2 ** (order / 2)),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color="0.35",
    )


def curves(axis, errors, styles, title):
    """Error against calls on two logarithmic axes."""
    for name, values in errors.items():
        _, colour, dash = styles[name]
        axis.loglog(
            CALLS[: len(values)], values, dash, color=colour, label=name, lw=2, marker="o", ms=3.5
        )
    axis.set_title(title, fontsize=11, loc="left")
    axis.set_xlabel("network calls")
    ticks = [n for n in (5, 10, 20, 40, 80, 160, 320) if n <= CALLS[len(values) - 1]]
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.25, which="both")
    axis.spines[["top", "right"]].set_visible(False)


def main():
    figure = plt.figure(figsize=(11, 13.6), dpi=110)
    top, bottom = figure.add_gridspec(2, 1, height_ratios=(1.65, 1), hspace=0.1)
    pictures(top)
    left, right = bottom.subgridspec(1, 2, wspace=0.18).subplots()
    flow = flow_errors()
    curves(left, flow, ODE, "How far a point ends from where the exact flow takes it")
    for order, y in ((1, 0.12), (2, 0.0035), (3, 1.1e-4)):
        slope(left, 80 if order < 3 else 16, y, order)
    left.legend(frameon=False, fontsize=9, loc="lower left", handlelength=3.5)
    cloud, floor = cloud_errors()
    curves(right, cloud, ODE | SDE, "How far the drawn cloud is from the monster")
    right.set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
    right.axhline(floor, color="0.5", ls=":")
    right.annotate(
        "as many draws of the monster itself",
        (5, floor),
        (0, -12),
        textcoords="offset points",
        fontsize=9,
        color="0.35",
    )
    right.set_ylim(top=0.55)  # room for the names
    right.legend(frameon=False, fontsize=9, handlelength=3.5, loc="upper right")
    for errors in (flow, cloud):
        for name, values in errors.items():
            print(f"{name:22}", *(f"{value:.1e}" for value in values))
    figure.savefig(Path(__file__).with_suffix(".png"), bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
