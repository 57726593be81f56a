"""How near the pictures of few calls of the network come to those of 1,000 steps, here and there.

    python docs/benchmarks/error_by_calls.py runs/toy-1 --prompts data/toy/test.json [--quick]

Both sides solve the same equation, that of the run's network with guidance, from the same noise.
Ours are the solvers of sample.py on their grids; theirs diffusers' schedulers with the settings
that change their error most. What is compared is, for each number of calls, the best of either.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import diffusers
import torch
from rounds import arguments, keep, machine, published_prediction, table

from tinyldm.commands.convert import betas_of
from tinyldm.device import pick_device
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.unipc import UniPC
from tinyldm.methods.fitted_grid import Runs, distance, fit
from tinyldm.sampling.drawing import Painter, encode_prompts
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen

DPM, UNIPC = diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler
OURS = {
    "dpm++ 2, trailing": (DPMSolver(2), "trailing"),
    "dpm++ 3, trailing": (DPMSolver(3), "trailing"),
    "unipc 2, trailing": (UniPC(2), "trailing"),
    "unipc 3, trailing": (UniPC(3), "trailing"),
    "unipc 2, linspace": (UniPC(2), "linspace"),
    "heun, trailing": (Heun(), "trailing"),
    "dpm++ 2, logsnr": (DPMSolver(2), "logsnr"),
    "dpm++ 3, logsnr": (DPMSolver(3), "logsnr"),
    "unipc 2, logsnr": (UniPC(2), "logsnr"),
    "unipc 3, logsnr": (UniPC(3), "logsnr"),
    "dpm++ 2, fitted": (DPMSolver(2), "fitted"),
    "unipc 2, fitted": (UniPC(2), "fitted"),
    "unipc 3, fitted": (UniPC(3), "fitted"),
}
THEIRS = {
    "DPMSolverMultistep 2, trailing": (DPM, {"timestep_spacing": "trailing"}),
    "DPMSolverMultistep 2, linspace": (DPM, {"timestep_spacing": "linspace"}),
    "DPMSolverMultistep 2, Karras": (DPM, {"use_karras_sigmas": True}),
    "DPMSolverMultistep 2, lambdas": (DPM, {"use_lu_lambdas": True}),
    "DPMSolverMultistep 3, trailing": (DPM, {"timestep_spacing": "trailing", "solver_order": 3}),
    "DPMSolverMultistep 3, lambdas": (DPM, {"use_lu_lambdas": True, "solver_order": 3}),
    "UniPC 2, trailing": (UNIPC, {"timestep_spacing": "trailing"}),
    "UniPC 3, trailing": (UNIPC, {"timestep_spacing": "trailing", "solver_order": 3}),
    "UniPC 2, linspace": (UNIPC, {"timestep_spacing": "linspace"}),
    "UniPC 2, Karras": (UNIPC, {"use_karras_sigmas": True}),
    "UniPC 2, bh1, trailing": (UNIPC, {"timestep_spacing": "trailing", "solver_type": "bh1"}),
    "DEIS 3, trailing": (
        diffusers.DEISMultistepScheduler,
        {"timestep_spacing": "trailing", "solver_order": 3},
    ),
    "Heun, trailing": (diffusers.HeunDiscreteScheduler, {"timestep_spacing": "trailing"}),
}


class Counted:
    """A denoiser that counts how often it is called."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x, t, condition):
        self.calls += 1
        return self.denoiser(x, t, condition)


def runs_of(painter, encoder, requests, seed):
    """Runs of the prompts, each from noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(requests), *painter.latent_shape, generator=generator)
    return Runs(
        denoiser=painter.guidance(painter.network),
        noise=noise.to(painter.device),
        schedule=painter.schedule,
        prediction=painter.prediction,
        condition=encode_prompts(encoder, [r.prompt for r in requests]).to(painter.device),
    )


def their_ends(runs, denoiser, kind, settings, steps):
    """The x0 that a scheduler of diffusers' ends with."""
    schedule = runs.schedule
    prediction = published_prediction(schedule, runs.prediction)
    known = {**betas_of(schedule), "prediction_type": prediction, **settings}
    if schedule.zero_snr:
        known["rescale_betas_zero_snr"] = True
    scheduler = kind(**known)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)  # else one that visits a timestep twice begins at the second
    x = runs.noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        predicted = denoiser(shown, t.float().expand(len(x)), runs.condition)
        x = scheduler.step(predicted, t, x).prev_sample
    return x


def measured(fitted, judged, given, known=()):
    """(side, setting, calls, error) of every setting that is not known."""
    ours, theirs = ({n: s for n, s in all.items() if n not in known} for all in (OURS, THEIRS))
    truth = judged.ends(DPMSolver(2), judged.schedule.grid(given.reference))
    grids = {}
    for name, (solver, spacing) in ours.items():
        if spacing == "fitted":
            steps = [n for n in given.steps if n <= given.most_fitted]
            for n, grid, _ in fit(fitted, solver, steps, rounds=2):
                grids[name, n] = grid
    for name, (solver, spacing) in ours.items():
        for n in given.steps:
            grid = grids.get((name, n))
            if spacing != "fitted":
                grid = judged.schedule.grid(n, spacing)
            if grid is None:
                continue
            denoiser = Counted(judged.denoiser)
            error = distance(judged.ends(solver, grid, denoiser=denoiser), truth)
            yield "ours", name, denoiser.calls, error
    for name, (kind, settings) in theirs.items():
        for n in given.steps:
            denoiser = Counted(judged.denoiser)
            error = distance(their_ends(judged, denoiser, kind, settings, steps=n), truth)
            yield "diffusers", name, denoiser.calls, error


def best(rows, side, most):
    """The row of a side with the smallest error of those with at most so many calls."""
    return min((r for r in rows if r[0] == side and r[2] <= most), key=lambda r: r[3], default=None)


def write(rows):
    """For each number of calls the best of either side."""
    lines = []
    for calls in sorted({row[2] for row in rows}):
        ours, theirs = (best(rows, side, calls) for side in ("ours", "diffusers"))
        if ours and theirs:
            lines.append([calls, f"{ours[3]:.4f}", ours[1], f"{theirs[3]:.4f}", theirs[1]])
    return table(["calls", "error", "our best", "error", "diffusers' best"], lines)


@torch.inference_mode()
def main(argv=None):
    parser = arguments(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--fit", type=int, default=4, help="prompts that grids are fitted to")
    parser.add_argument("--judge", type=int, default=4, help="other prompts, to judge by")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 5, 6, 8, 10, 15, 20, 30])
    parser.add_argument("--most-fitted", type=int, default=10, help="steps of a fitted grid")
    parser.add_argument("--reference", type=int, default=1000, help="steps of the truth")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument(
        "--known", type=Path, help="a result for the same run and options; measure what it lacks"
    )
    given = parser.parse_args(argv)
    if given.quick:
        given.fit, given.judge, given.steps, given.reference = 1, 1, [4, 8], 40
    device = pick_device()
    checkpoint = load_checkpoint(given.run, device)
    task = task_of(checkpoint.config)
    models = load_frozen(checkpoint.config, device, checkpoint.path)
    how = Drawing(guidance=given.guidance, precision="float32")
    painter = Painter.of(checkpoint, models.vae, task, how, device=device)
    requests = task.requests(given.prompts)
    fitted = runs_of(painter, models.encoder, requests[: given.fit], 1)
    judged = runs_of(painter, models.encoder, requests[given.fit :][: given.judge], 2)
    rows = json.loads(given.known.read_text())["rows"] if given.known else []
    for row in measured(fitted, judged, given, known={row[1] for row in rows}):
        rows.append(row)
        print("{:10} {:32} {:3} calls  {:.4f}".format(*row), flush=True)
    result = {"machine": machine(), "rows": rows, "reference": given.reference}
    result |= {"prompts": given.judge, "guidance": given.guidance}
    keep("error_by_calls", result, given, write(rows))


if __name__ == "__main__":
    sys.exit(main())
