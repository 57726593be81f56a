"""commands.sweep."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

from tinyldm.commands.encode import read_data
from tinyldm.errors import InputError
from tinyldm.pages.sweep import (
    EXAMPLES,
    PAGE,
    prompts_of,
    ranked,
    shown,
    sweep,
)
from tinyldm.sampling.drawing import SOLVERS
from tinyldm.scores.evaluation import METRICS
from tinyldm.scores.held_out import IMAGES, Split
from tinyldm.training.checkpoint import checkpoints, latest_run, read_config


def add_arguments(parser):
    """The options of python -m tinyldm sweep."""
    parser.epilog = EXAMPLES
    grid = parser.add_argument_group("the grid")
    grid.add_argument("--run", metavar="FOLDER", help="default: the newest run in runs/")
    grid.add_argument(
        "--checkpoints", nargs="+", metavar="STEP", help="steps, or all (default: the newest)"
    )
    grid.add_argument(
        "--guidance",
        nargs="+",
        type=float,
        default=[1.0, 2.0, 3.0, 5.0],
        metavar="X",
        help="scales",
    )
    grid.add_argument(
        "--steps", nargs="+", type=int, default=[25], metavar="N", help="calls of the network"
    )
    grid.add_argument("--solver", nargs="+", choices=SOLVERS, default=["dpm++"], help="one or more")
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument(
        "--prompts",
        metavar="FILE",
        help="to judge by, other than those of the test (default: "
        "the captions that the run held out, with their images, if it was trained with --hold-out)",
    )
    judged.add_argument(
        "--count", type=int, metavar="N", help="so many prompts, spread over them (default: all)"
    )
    judged.add_argument(
        "--reference",
        metavar="DIR",
        help="real images, or test_mu.npy and test_sigma.npy (default: the images held out)",
    )
    judged.add_argument(
        "--evaluator", metavar="FOLDER", help="reads labels or maps off the images, as in evaluate"
    )
    judged.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="of evaluate (default: clip-t for captions, "
        "clip-fd with images held out or --reference, evaluator with --evaluator, toy attributes for toys)",
    )
    judged.add_argument("--clip", metavar="NAME", help="as in evaluate")
    machine = parser.add_argument_group("machine and output")
    machine.add_argument(
        "--out", metavar="FOLDER", help="default: RUN/sweep, where report.html finds it"
    )
    machine.add_argument("--overwrite", action="store_true", help="forget what the folder holds")
    machine.add_argument("--seed", type=int, default=0, help="of the noise")
    machine.add_argument("--batch-size", type=int, default=32, help="images at a time")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options):
    """Sweep, print the table, say which setting to submit with."""
    folder = Path(options.run or latest_run())
    known = {path.name: path for path in checkpoints(folder)}
    wanted = options.checkpoints or list(known)[-1:]
    names = (
        list(known) if wanted == ["all"] else [s if s in known else f"step-{s:0>7}" for s in wanted]
    )
    if not names or any(name not in known for name in names):
        there = ", ".join(known) or "no checkpoint at all"
        raise InputError(f"--checkpoints {' '.join(wanted)}: {folder} has {there}")
    for name, least in {"guidance": 0, "steps": 1, "count": 1, "seed": 0, "batch_size": 1}.items():
        values = getattr(options, name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not least <= value < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {value:g}: expected {least} or more")
    settings = read_config(known[names[-1]])["settings"]
    if not settings["cfg_drop"] and options.guidance != [1.0]:
        raise InputError(
            "--guidance: the run was trained with --cfg-drop 0 and knows no null condition; expected 1"
        )
    if options.prompts:
        split = Split.of_file(Path(options.prompts), options.count)
    elif settings.get("hold_out"):
        split = Split.of_held(*read_data(settings)[::-1], options.count)
    else:
        raise InputError(
            f"{folder}: its training held nothing out to judge by (train.py --hold-out 0.05); give --prompts "
            "FILE, of other prompts than the test's"
        )
    out = Path(options.out) if options.out else folder / "sweep"
    reference = options.reference or (out / IMAGES if split.images else None)
    fit = {
        "clip-t": settings.get("task", "text") == "text",
        "clip-fd": reference,
        "evaluator": options.evaluator,
        "toy attributes": split.toys,
    }
    metrics = options.metrics or [name for name, fits in fit.items() if fits]
    if not metrics:
        raise InputError("nothing to score by: expected --evaluator FOLDER or --reference DIR")
    if set(metrics) - METRICS.keys():
        raise InputError(f"--metrics {' '.join(metrics)}: expected some of {', '.join(METRICS)}")
    grid = list(
        dict.fromkeys(
            product((known[n] for n in names), options.guidance, options.steps, options.solver)
        )
    )
    result = sweep(
        folder,
        out,
        split,
        grid,
        metrics,
        submission=str(prompts_of(settings) or options.prompts or "FILE"),
        seed=options.seed,
        device=options.device,
        batch_size=options.batch_size,
        overwrite=options.overwrite,
        reference=reference,
        evaluator=options.evaluator,
        clip=options.clip,
    )
    cells, head = shown(ranked(result["rows"], metrics), metrics)
    wide = [max(len(str(row[k])) for row in [head, *cells]) for k in range(len(head))]
    for row in [head, *cells]:
        print("  ".join(f"{cell!s:>{w}}" for cell, w in zip(row, wide)))
    print(f"submit with: {result['advice']}\ncurves: {out / PAGE}")
