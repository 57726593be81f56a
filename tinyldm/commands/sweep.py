"""python -m tinyldm sweep: draw and score a grid of checkpoints, guidance, steps and more."""

from __future__ import annotations

from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.cli import BATCH_SIZE, GUIDANCE, SEED, SOLVER_STEPS, Parser, whole
from tinyldm.errors import InputError, say
from tinyldm.installation import called
from tinyldm.spelling import nearest

if TYPE_CHECKING:
    from tinyldm.pages.html import Table
    from tinyldm.scores.held_out import Validation
    from tinyldm.tasks.base import Task

EXAMPLES = """examples:
  python -m tinyldm sweep --guidance 1 2 3 5 --steps 10 25 50 --count 64
      for a run trained with train.py --hold-out 0.05
  python -m tinyldm sweep --run runs/monsters-1 --checkpoints all --metrics fid clip-t
  python -m tinyldm sweep --run runs/monsters-1 --prompts mine.json --reference photos
      with prompts and images that you held out yourself
  python -m tinyldm sweep --run runs/toy-1 --ema-length saved 0.05 0.1 0.15
  python -m tinyldm sweep --run runs/toy-1 --guidance 1 3 --guide none 500 --guide-scale 1.5 2 3
      with the average that was saved and others, with autoguidance and without
"""


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm sweep."""
    parser.end_with(EXAMPLES)
    _add_grid(parser)
    _add_judging(parser)
    machine = parser.add_argument_group("machine and output")
    machine.add_argument(
        "--out",
        metavar="FOLDER",
        help="the folder to write (default: RUN/sweep, where report.html finds it)",
    )
    machine.add_argument("--overwrite", action="store_true", help="discard what the folder holds")
    machine.add_argument("--seed", type=SEED, default=0, help="seed of the noise")
    machine.add_argument("--batch-size", type=BATCH_SIZE, default=32, help="images at a time")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def _add_grid(parser: Parser) -> None:
    """The checkpoints and the settings of drawing to compare."""
    from tinyldm.sampling.settings import SOLVERS

    grid = parser.add_argument_group("the grid")
    grid.add_argument("--run", metavar="FOLDER", help="the run (default: the newest in runs/)")
    grid.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="STEP",
        help="checkpoints by their steps, or all (default: the newest)",
    )
    grid.add_argument(
        "--guidance",
        nargs="+",
        type=GUIDANCE,
        metavar="X",
        help="guidance scales (default: 1 2 3 5; 1 after --cfg-drop 0)",
    )
    grid.add_argument(
        "--steps",
        nargs="+",
        type=SOLVER_STEPS,
        default=[25],
        metavar="N",
        help="solver steps per picture",
    )
    grid.add_argument("--solver", nargs="+", choices=SOLVERS, default=["dpm++"], help="solvers")
    grid.add_argument(
        "--ema-length",
        nargs="+",
        type=ema_length,
        default=[None],
        metavar="S",
        help="lengths of the averages to draw with, after train.py --post-hoc-ema; "
        "saved: the average of --ema (default: saved)",
    )
    grid.add_argument(
        "--guide",
        nargs="+",
        default=["none"],
        metavar="FOLDER",
        help="guides for autoguidance: runs, checkpoints, or steps of checkpoints of the run; "
        "none: without (default: none)",
    )
    grid.add_argument(
        "--guide-scale",
        nargs="+",
        type=GUIDANCE,
        metavar="X",
        help="scales of the guides (default: 2)",
    )


def ema_length(text: str) -> float | None:
    """The length of an average that --ema-length names; None for the one that was saved."""
    from tinyldm.sampling.settings import EMA_LENGTH

    return None if text == "saved" else EMA_LENGTH(text)


def _add_judging(parser: Parser) -> None:
    """The prompts, the reference and the metrics that decide."""
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompts to judge by, not those of the test (default: the prompts of the images that "
        "train.py --hold-out left out, with these images)",
    )
    judged.add_argument(
        "--count",
        type=whole(1, 10**6),
        metavar="N",
        help="use N of the prompts, evenly spread (default: all)",
    )
    judged.add_argument(
        "--reference",
        metavar="DIR",
        help="real images, or test_mu.npy and test_sigma.npy (default: the held-out images)",
    )
    judged.add_argument(
        "--evaluator",
        metavar="FOLDER",
        help="a network that reads labels or maps off the images, as in evaluate",
    )
    judged.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="metrics of evaluate (default: clip-t for captions, clip-fd with held-out images or "
        "--reference, evaluator with --evaluator, toy attributes for toys)",
    )
    judged.add_argument("--clip", metavar="NAME", help="as in evaluate")


def run(options: Namespace) -> None:
    """Sweep, print the table, and say which setting to submit with."""
    from tinyldm.pages.ranking import ranked, ranking
    from tinyldm.pages.sweep import PAGE, Setting, Sweep, prompts_of, sweep
    from tinyldm.scores.held_out import IMAGES
    from tinyldm.training.checkpoint import latest_run, read_config, task_of
    from tinyldm.training.settings import TrainSettings

    folder = Path(options.run or latest_run())
    checkpoints = chosen_checkpoints(folder, options.checkpoints)
    config = read_config(checkpoints[-1])
    settings, task = config["settings"], task_of(config)
    guidance = chosen_guidance(options.guidance, settings.get("cfg_drop", TrainSettings.cfg_drop))
    validation = read_validation(folder, settings, task, options)
    out = Path(options.out) if options.out else folder / "sweep"
    reference = options.reference
    if not reference and validation.images:
        reference = out / IMAGES
    metrics = options.metrics or default_metrics(task, validation, reference, options.evaluator)
    check_metrics(metrics)
    job = Sweep(
        run=folder,
        out=out,
        validation=validation,
        metrics=metrics,
        judges={"reference": reference, "evaluator": options.evaluator, "clip": options.clip},
        submission=asked_of(task, validation, prompts_of(config) or options.prompts),
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
    )
    guides = chosen_guides(folder, options.guide, options.guide_scale)
    axes = (checkpoints, guidance, options.steps, options.solver, options.ema_length, guides)
    grid = []
    for checkpoint, scale, steps, solver, length, (guide, guide_scale) in product(*axes):
        grid.append(
            Setting(
                checkpoint,
                scale,
                steps,
                solver,
                ema_length=length,
                guide=guide,
                guide_scale=guide_scale,
            )
        )
    distinct = list(dict.fromkeys(grid))
    result = sweep(job, distinct, options.overwrite)
    print_table(ranking(ranked(result["rows"], metrics), metrics))
    say(f"submit with: {result['advice']}")
    say(f"curves: {out / PAGE}")


def chosen_guides(
    run: Path, asked: list[str], scales: list[float] | None
) -> list[tuple[Path | None, float | None]]:
    """The guides that --guide names, each with each of the scales; (None, None) is no guide."""
    from tinyldm.sampling.settings import DEFAULT_GUIDE_SCALE
    from tinyldm.training.checkpoint import find_checkpoint

    if scales is not None and set(asked) == {"none"}:
        raise InputError("--guide-scale: expected --guide with it")
    found: list[tuple[Path | None, float | None]] = []
    for word in asked:
        if word == "none":
            found.append((None, None))
            continue
        step = run / "checkpoints" / f"step-{word:0>7}"
        guide = step if step.is_dir() else find_checkpoint(word)
        found += [(guide, scale) for scale in scales or [DEFAULT_GUIDE_SCALE]]
    return found


def chosen_guidance(asked: list[float] | None, cfg_drop: float) -> list[float]:
    """The scales that --guidance names, or else some that suit the training; see its help."""
    if not cfg_drop and asked not in (None, [1.0]):
        raise InputError(
            "--guidance: the run was trained with --cfg-drop 0 and has learned no null condition; "
            "expected 1"
        )
    return asked or ([1.0, 2.0, 3.0, 5.0] if cfg_drop else [1.0])


def chosen_checkpoints(run: Path, asked: list[str] | None) -> list[Path]:
    """The checkpoints that --checkpoints names by step or folder; by default the newest."""
    from tinyldm.training.checkpoint import checkpoints, find_checkpoint

    find_checkpoint(run)  # an InputError where there is none
    known = {path.name: path for path in checkpoints(run)}
    wanted = asked or list(known)[-1:]
    if wanted == ["all"]:
        names = list(known)
    else:
        names = [word if word in known else f"step-{word:0>7}" for word in wanted]
    if not names or any(name not in known for name in names):
        there = ", ".join(known) or "no checkpoint at all"
        raise InputError(f"--checkpoints {' '.join(wanted)}: {run} has {there}")
    return [known[name] for name in names]


def asked_of(task: Task, validation: Validation, prompts: Path | str | None) -> tuple[str, str]:
    """What to ask sample.py for, its option and the value: the prompts of a file, or a number.

    Tasks of few prompts, or of none, need no file; as many are drawn as were judged.
    """
    if prompts is None and task.repeats:
        return "count", str(len(validation.prompts))
    return "prompts", str(prompts or "FILE")


def read_validation(
    run: Path, settings: dict[str, Any], task: Task, options: Namespace
) -> Validation:
    """What to judge by: the prompts of a file, or else what the training held out."""
    from tinyldm.scores.held_out import Validation
    from tinyldm.toy.folder import data_folder
    from tinyldm.training.data import read_data

    if options.prompts:
        return Validation.of_file(Path(options.prompts), options.count, task)
    if settings.get("hold_out"):
        data = read_data(data_folder(settings.get("data")), settings)
        return Validation.of_held_out(data.examples, data.folder, options.count)
    instead = "; give --prompts FILE, with prompts other than those of the test"
    raise InputError(
        f"{run}: its training held nothing out to judge by "
        f"({called('train.py')} --hold-out 0.05){instead if task.prompted else ''}"
    )


def default_metrics(
    task: Task, validation: Validation, reference: Path | str | None, evaluator: str | None
) -> list[str]:
    """The metrics that suit the task and what was given."""
    metrics = []
    if task.captions:
        metrics.append("clip-t")
    if reference:
        metrics.append("clip-fd")
    if evaluator:
        metrics.append("evaluator")
    if validation.toys:
        metrics.append("toy attributes")
    if not metrics:
        raise InputError("nothing to score by: expected --evaluator FOLDER or --reference DIR")
    return metrics


def check_metrics(metrics: list[str]) -> None:
    """InputError for an unknown metric."""
    from tinyldm.scores.metrics import METRICS

    for name in metrics:
        if name not in METRICS:
            known = f"expected some of {', '.join(METRICS)}{nearest(name, METRICS)}"
            raise InputError(f"--metrics {' '.join(metrics)}: {known}")


def print_table(table: Table) -> None:
    """Print a table with its columns aligned on the right."""
    lines = [table.head, *table.rows]
    widths = [max(len(str(cell)) for cell in cells) for cells in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(f"{cell!s:>{width}}" for cell, width in zip(line, widths, strict=True)))
