"""Draws docs/grids.png: how far the pictures of few calls are from those of many, grid by grid.

    python docs/grids.py runs/toy-1 --prompts data/toy/test.json

For each solver a grid is fitted to a few of the prompts, and judged by others with other noise: the
root mean square distance of the final latents, which have unit variance, from those of 200 steps of
DPM-Solver++ of second order. Prints a table; takes about ten minutes on two cores. Needs
matplotlib.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

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

STEPS = (4, 6, 8, 10)
LONG = (16, 25, 50)  # for the default alone: what few calls are to be compared with
SOLVERS = {
    "dpm++ 2": (DPMSolver(2), "#3182bd"),
    "unipc 2": (UniPC(2), "#31a354"),
    "unipc 3": (UniPC(3), "#e6550d"),
}
GRIDS = {"trailing": "--", "linspace": ":", "fitted": "-"}
OTHERS = {
    "ddim": (DDIM(), "#636363"),
    "heun": (Heun(), "#d6489a"),
    "dpm++ 3": (DPMSolver(3), "#6a3d9a"),
}


def runs_of(painter: Painter, encoder, requests, seed: int) -> Runs:
    """A run for each request, each with noise of its own."""
    noise = [
        torch.randn(
            painter.latent_shape, generator=torch.Generator().manual_seed(picture_seed(seed, k))
        )
        for k in range(len(requests))
    ]
    return Runs(
        painter.guidance(painter.network) if painter.guidance else painter.network,
        torch.stack(noise),
        painter.schedule,
        painter.prediction,
        encode_prompts(encoder, [request.prompt for request in requests]),
    )


def measured(fitted: Runs, judged: Runs) -> Iterator[tuple[str, str, int, float]]:
    """(solver, grid, calls, error) for each; says how far the references are from finer ones."""
    few = Runs(
        judged.denoiser,
        judged.noise[:2],
        judged.schedule,
        judged.prediction,
        judged.condition[:2],
    )
    truth = judged.ends(DPMSolver(2), judged.schedule.grid(200))
    finer = few.ends(DPMSolver(2), few.schedule.grid(400))
    print(f"200 steps from 400, two prompts: {distance(truth[:2], finer):.4f}", flush=True)
    for n in LONG:
        ends = judged.ends(DPMSolver(2), judged.schedule.grid(n))
        yield "dpm++ 2", "trailing", n, distance(ends, truth)
    fine = Trajectories.of(fitted, 64)
    for name, (solver, _) in SOLVERS.items():
        for spacing in ("trailing", "linspace") if name == "dpm++ 2" else ("trailing",):
            for n in STEPS:
                ends = judged.ends(solver, judged.schedule.grid(n, spacing))
                yield name, spacing, n, distance(ends, truth)
        for n, grid, _ in fit(fitted, solver, STEPS, trajectories=fine):
            print(name, n, [round(level.t, 1) for level in grid[:-1]], flush=True)
            yield name, "fitted", n, distance(judged.ends(solver, grid), truth)
    for name, (solver, _) in OTHERS.items():
        for n in STEPS:
            calls = []
            counted = Runs(
                lambda x, t, c, calls=calls: calls.append(1) or judged.denoiser(x, t, c),
                judged.noise,
                judged.schedule,
                judged.prediction,
                judged.condition,
            )
            ends = counted.ends(solver, judged.schedule.grid(n))
            yield name, "trailing", len(calls), distance(ends, truth)


def draw(rows: list[tuple[str, str, int, float]], out: Path) -> None:
    """One panel for each solver, all with the default setting as far as 50 calls."""
    figure, axes = plt.subplots(1, len(SOLVERS), figsize=(11, 3.6), sharey=True)

    def curve(axis, name, grid, **style):
        points = sorted((n, error) for s, g, n, error in rows if (s, g) == (name, grid))
        if points:
            axis.loglog(*zip(*points, strict=True), marker="o", ms=3, **style)

    for axis, (name, (_, colour)) in zip(axes, SOLVERS.items(), strict=True):
        curve(axis, "dpm++ 2", "trailing", color="#cccccc", lw=3, label="dpm++ 2 trailing")
        for grid, line in GRIDS.items():
            curve(axis, name, grid, color=colour, ls=line, label=grid)
        axis.set(title=name, xlabel="calls of the network", xticks=[4, 6, 8, 10, 16, 25, 50])
        axis.set_xticklabels(axis.get_xticks())
        axis.minorticks_off()
        axis.legend(fontsize=7)
    for name, (_, colour) in OTHERS.items():
        curve(axes[0], name, "trailing", color=colour, ls="--", lw=0.8, label=name)
    axes[0].legend(fontsize=7)
    axes[0].set_ylabel("distance from 200 steps")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Fit, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--fit", type=int, default=6, help="prompts to fit to")
    parser.add_argument("--judge", type=int, default=12, help="other prompts, to judge by")
    parser.add_argument("--guidance", type=float, default=Drawing.guidance)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("grids.png"))
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.run)
    task = task_of(checkpoint.config)
    models = load_frozen(checkpoint.config, torch.device("cpu"), checkpoint.path)
    how = Drawing(guidance=options.guidance)
    painter = Painter.of(checkpoint, models.vae, task, how, device=torch.device("cpu"))
    requests = task.requests(options.prompts)
    judged = requests[options.fit : options.fit + options.judge]
    rows = []
    for row in measured(
        runs_of(painter, models.encoder, requests[: options.fit], 1),
        runs_of(painter, models.encoder, judged, 2),
    ):
        rows.append(row)
        print("{:10} {:9} {:3} calls  {:.4f}".format(*row), flush=True)
    draw(rows, options.out)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
