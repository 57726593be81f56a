"""python -m tinyldm grid: fit the levels that few steps visit to a run, its solver and guidance."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tinyldm.cli import Parser, add_options, whole
from tinyldm.errors import InputError, say
from tinyldm.sampling.settings import SampleOptions

if TYPE_CHECKING:
    from tinyldm.data.examples import Request
    from tinyldm.methods.fitted_grid import Runs
    from tinyldm.sampling.drawing import Painter
    from tinyldm.tasks.base import Encoder, Task
    from tinyldm.training.checkpoint import Config

EXAMPLES = """examples:
  python -m tinyldm grid runs/toy-1 --steps 4 6 8
      then: python sample.py --run runs/toy-1 --spacing fitted --steps 8
  python -m tinyldm grid runs/toy-1 --steps 8 --solver unipc --order 3 --guidance 4
      then: the same solver, order and guidance in sample.py

The grids are written beside the checkpoint, to grids.json. Those for other solvers, guidance or
steps that are there already stay.
"""
SHARED = (
    "solver",
    "order",
    "eta",
    "guidance",
    "guidance_map",
    "guidance_style",
    "guidance_interval",
    "guidance_rescale",
    "ema_length",
    "guide",
    "guide_scale",
    "guide_ema_length",
    "data",
    "seed",
    "device",
)
"""Options of sample.py that a grid is fitted for, and those that say from what and where."""


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm grid."""
    parser.end_with(EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run or a checkpoint")
    fitting = parser.add_argument_group("the fit")
    fitting.add_argument(
        "--steps",
        nargs="+",
        type=whole(1, 64),
        default=[4, 6, 8],
        metavar="N",
        help="numbers of steps, each of which gets a grid",
    )
    fitting.add_argument(
        "--count",
        type=whole(1, 1024),
        default=16,
        metavar="N",
        help="pictures whose drawing the grid is fitted to",
    )
    fitting.add_argument(
        "--prompts",
        metavar="FILE",
        help="what they show, as in sample.py (default: the prompts of the run's previews)",
    )
    fitting.add_argument(
        "--fine",
        type=whole(2, 1000),
        default=64,
        metavar="N",
        help="steps of the drawing that it is to come near to",
    )
    parser.keep_only_given()
    add_options(parser, SampleOptions, only=SHARED)


def run(options: Namespace) -> None:
    """Fit a grid for each number of steps, write them, and say how good they are."""
    from tinyldm.device import pick_device
    from tinyldm.methods.fitted_grid import fit
    from tinyldm.sampling.fitted import FittedGrid, add_grids, drawing_facts
    from tinyldm.sampling.job import LoadedRun
    from tinyldm.training.checkpoint import find_checkpoint, read_config, task_of

    given = {name: value for name, value in vars(options).items() if name in SHARED}
    asked = SampleOptions(run=options.run, steps=max(options.steps), **given)
    folder = find_checkpoint(options.run)
    config = read_config(folder)
    task = task_of(config)
    how = asked.drawing(task, config["settings"])
    if how.solver.stochastic:
        name = asked.solver or type(how.solver).__name__
        raise InputError(f"--solver {name}: adds noise; expected one that adds none")
    if max(options.steps) > options.fine:
        raise InputError(f"--steps {max(options.steps)}: expected at most --fine {options.fine}")
    requests = prompts_for(options, asked, task, config)
    model = LoadedRun.load(folder, how, pick_device(asked.device))
    runs = runs_of(model.painter, model.models.encoder, requests, asked.seed)
    fitted = {}
    try:
        for n, grid, error in fit(runs, how.solver, sorted(set(options.steps)), fine=options.fine):
            timesteps = tuple(level.t for level in grid[:-1])
            fitted[n] = FittedGrid(drawing_facts(how), n, timesteps, error)
            say(f"{n} steps, off by {error:.3f}: t = {', '.join(f'{t:.1f}' for t in timesteps)}")
    except ValueError as error:
        raise InputError(f"--steps {max(options.steps)}: {error}") from None
    say(add_grids(model.checkpoint, how, fitted))


def prompts_for(
    options: Namespace, asked: SampleOptions, task: Task, config: Config
) -> list[Request]:
    """As many requests as the fit takes: of a file, or the previews', one after another."""
    from tinyldm.data.examples import Request

    if options.prompts is not None:
        known = task.requests(Path(options.prompts))
    else:
        data = asked.data_folder(config)
        known = [
            Request(f"{k}.png", task.prompt(text, data))
            for k, text in enumerate(config["preview_prompts"])
        ]
    if not known:
        raise InputError(f"{options.run}: its previews have no prompts; expected --prompts FILE")
    return [known[k % len(known)] for k in range(options.count)]


def runs_of(painter: Painter, encoder: Encoder, requests: list[Request], seed: int) -> Runs:
    """A run of the sampler for each request, each from noise of its own."""
    import torch

    from tinyldm.methods.fitted_grid import Runs
    from tinyldm.randomness import torch_stream
    from tinyldm.sampling.drawing import encode_prompts

    prompts = [request.prompt for request in requests]
    encoder.check(prompts)
    stream = torch_stream(seed, "grid")
    noise = torch.randn(len(requests), *painter.latent_shape, generator=stream)
    return Runs(
        denoiser=painter.network if painter.guidance is None else painter.guidance(painter.network),
        noise=noise.to(painter.device),
        schedule=painter.schedule,
        prediction=painter.prediction,
        condition=encode_prompts(encoder, prompts),
    )
