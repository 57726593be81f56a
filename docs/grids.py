"""Draws docs/grids.png: how far the pictures of few calls are from those of many, grid by grid.

    python docs/grids.py runs/toy-1 --prompts data/toy/test.json

For each solver a grid is fitted to the first prompts, and judged by others with other noise: the
mean root mean square distance of the final latents, which have unit variance, from those of many
steps of DPM-Solver++ of second order. Prints each number as it is found; half an hour on two cores.
Needs matplotlib.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import torch

from tinyldm import DDIM, DPMSolver, Heun, UniPC
from tinyldm.methods.fitted_grid import Runs, Trajectories, distance, fit
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LONG = (16, 25, 50)  # steps of the default, to compare few calls with
SOLVERS = {
    "dpm++ 2": (DPMSolver(2), "#3182bd"),
    "dpm++ 3": (DPMSolver(3), "#6a3d9a"),
    "unipc 2": (UniPC(2), "#31a354"),
    "unipc 3": (UniPC(3), "#e6550d"),
}
OTHERS = {"ddim": (DDIM(), "#636363"), "heun": (Heun(), "#d6489a")}  # on the default grid alone
GRIDS = {"trailing": "--", "linspace": ":", "fitted": "-"}
Row = tuple[str, str, int, float]  # solver, grid, calls, error


def runs_of(painter: Painter, encoder: Any, requests: Sequence[Any], seed: int) -> Runs:
    """A run for each request, each with noise of its own."""
    generators = [
        torch.Generator().manual_seed(picture_seed(seed, k)) for k in range(len(requests))
    ]
    return Runs(
        denoiser=painter.guidance(painter.network) if painter.guidance else painter.network,
        noise=torch.stack([torch.randn(painter.latent_shape, generator=g) for g in generators]),
        schedule=painter.schedule,
        prediction=painter.prediction,
        condition=encode_prompts(encoder, [request.prompt for request in requests]),
    )


def reference(judged: Runs, steps: int) -> torch.Tensor:
    """The ends of many steps; says how far they are from those of twice as many, for two runs."""
    truth = judged.ends(DPMSolver(2), judged.schedule.grid(steps))
    two = replace(judged, noise=judged.noise[:2], condition=judged.condition[:2])
    finer = two.ends(DPMSolver(2), two.schedule.grid(2 * steps))
    print(f"{steps} steps, off {2 * steps} by {distance(truth[:2], finer):.4f}", flush=True)
    return truth


def measured(fitted: Runs, judged: Runs, asked: argparse.Namespace) -> Iterator[Row]:
    """The error of each solver on each grid, for each number of steps."""
    truth = reference(judged, asked.reference)

    def error(solver, grid):
        return distance(judged.ends(solver, grid), truth)

    fine = Trajectories.of(fitted, 64)
    for name in asked.solvers:
        solver, _ = SOLVERS[name]
        for n in asked.steps:
            yield name, "trailing", n, error(solver, judged.schedule.grid(n))
        for n, grid, _ in fit(fitted, solver, asked.steps, trajectories=fine, rounds=3):
            print(name, n, [round(level.t, 1) for level in grid[:-1]], flush=True)
            yield name, "fitted", n, error(solver, grid)
    for n in LONG:
        yield "dpm++ 2", "trailing", n, error(DPMSolver(2), judged.schedule.grid(n))
    for n in asked.steps:
        yield "dpm++ 2", "linspace", n, error(DPMSolver(2), judged.schedule.grid(n, "linspace"))
    for name, (solver, _) in OTHERS.items():
        for n in asked.steps:
            calls = []

            def counted(x, t, condition, calls=calls):
                calls.append(1)
                return judged.denoiser(x, t, condition)

            ends = replace(judged, denoiser=counted).ends(solver, judged.schedule.grid(n))
            yield name, "trailing", len(calls), distance(ends, truth)


def draw(rows: Sequence[Row], out: Path) -> None:
    """One panel for each solver, in all of them the default as far as 50 calls, in grey."""
    names = [name for name in SOLVERS if any(row[:2] == (name, "fitted") for row in rows)]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.6), sharey=True)

    def curve(axis, name, grid, **style):
        points = sorted((n, error) for s, g, n, error in rows if (s, g) == (name, grid))
        if points:
            axis.loglog(*zip(*points, strict=True), marker="o", ms=3, **style)

    for axis, name in zip(axes, names, strict=True):
        curve(axis, "dpm++ 2", "trailing", color="#cccccc", lw=3, label="dpm++ 2, trailing")
        for grid, line in GRIDS.items():
            curve(axis, name, grid, color=SOLVERS[name][1], ls=line, label=grid)
        if name == names[0]:
            for other, (_, colour) in OTHERS.items():
                label = f"{other}, trailing"
                curve(axis, other, "trailing", color=colour, ls="--", lw=0.8, label=label)
        axis.set(title=name, xlabel="calls of the network")
        axis.minorticks_off()
        axis.set_xticks([4, 6, 8, 12, 25, 50], ["4", "6", "8", "12", "25", "50"])
        axis.set_yticks([0.02, 0.05, 0.1, 0.2, 0.4], ["0.02", "0.05", "0.1", "0.2", "0.4"])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("distance from many steps")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Fit, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--fit", type=int, default=16, help="prompts to fit to")
    parser.add_argument("--judge", type=int, default=16, help="other prompts, to judge by")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 12])
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--reference", type=int, default=200, help="steps taken for the truth")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("grids.png"))
    asked = parser.parse_args()
    checkpoint = load_checkpoint(asked.run)
    task = task_of(checkpoint.config)
    models = load_frozen(checkpoint.config, torch.device("cpu"), checkpoint.path)
    how = Drawing(guidance=asked.guidance)
    painter = Painter.of(checkpoint, models.vae, task, how, device=torch.device("cpu"))
    requests = task.requests(asked.prompts)
    fitted = runs_of(painter, models.encoder, requests[: asked.fit], 1)
    judged = runs_of(painter, models.encoder, requests[asked.fit :][: asked.judge], 2)
    rows = []
    for row in measured(fitted, judged, asked):
        rows.append(row)
        print("{:8} {:9} {:3} calls  {:.4f}".format(*row), flush=True)
    draw(rows, asked.out)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
