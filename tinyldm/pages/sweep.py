"""python -m tinyldm sweep: which checkpoint, which guidance, how many steps, which solver? Draws and scores a grid.

RUN/sweep/
    prompts.json held_out/        the prompts drawn for every setting, and their real images if the training left them out
    step-0001000_g3_s25_dpm++/    the pictures of one setting
    sweep.json sweep.html         what was asked, the scores of each setting, and their curves
"""

from __future__ import annotations

import hashlib
import json
import shlex
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tinyldm.commands.encode import TOY_FOLDER
from tinyldm.errors import InputError
from tinyldm.files import read_json, replacing
from tinyldm.pages.curves import Line, chart
from tinyldm.pages.html import commands, folded, page, table
from tinyldm.sampling.drawing import Drawing, make_solver, sample_images
from tinyldm.scores.evaluation import METRICS, evaluate
from tinyldm.scores.held_out import PROMPTS, Split
from tinyldm.training.checkpoint import read_config
from tinyldm.training.start import PROMPT_NAMES

RESULT, PAGE = "sweep.json", "sweep.html"
FACTS = ("n", "extractor", "preprocessing", "reference", "reference n")
AXES = ("checkpoint", "guidance", "steps", "solver")
EXAMPLES = """examples:
  python -m tinyldm sweep --guidance 1 2 3 5 --steps 10 25 50 --count 64      of a run with train.py --hold-out 0.05
  python -m tinyldm sweep --run runs/monsters-1 --checkpoints all --metrics fid clip-t
  python -m tinyldm sweep --run runs/monsters-1 --prompts mine.json --reference photos     held out by yourself
"""


def ranked(rows: list[dict], metrics: list[str]) -> list[dict]:
    """The rows with their mean "rank" over the metrics, the best first; of equals the one with fewer steps."""
    places = {
        metric: sorted(
            {row["scores"][metric] for row in rows}, reverse=METRICS[metric].best == "highest"
        )
        for metric in metrics
    }
    rows = [
        {**row, "rank": sum(places[m].index(row["scores"][m]) + 1 for m in metrics) / len(metrics)}
        for row in rows
    ]
    return sorted(
        rows, key=lambda row: (row["rank"], row["steps"], [str(row[axis]) for axis in AXES])
    )


def charts(rows: list[dict], metrics: list[str]) -> list[str]:
    """Curves of ranked rows: quality against steps and over the training, CLIP-T against distances over guidance."""

    def differ(axis):
        return len({row[axis] for row in rows}) > 1

    out = []
    for metric in metrics:
        if differ("steps"):
            lines = curves(
                rows, ("checkpoint",), "steps", lambda r: (r["steps"], r["scores"][metric])
            )
            out += [f"<h2>{metric} against steps</h2>", chart(lines, "steps", metric)]
        if differ("step"):
            lines = curves(
                rows,
                ("guidance", "steps", "solver"),
                "step",
                lambda r: (r["step"], r["scores"][metric]),
            )
            out += [f"<h2>{metric} over the training</h2>", chart(lines, "training step", metric)]
        if differ("guidance") and METRICS[metric].best == "lowest" and "clip-t" in metrics:
            lines = curves(
                rows,
                ("checkpoint",),
                "guidance",
                lambda r: (r["scores"][metric], r["scores"]["clip-t"]),
            )
            out += [
                f"<h2>clip-t against {metric}, over guidance</h2>",
                chart(lines, metric, "clip-t"),
            ]
    return out


def curves(rows: list[dict], fixed: tuple[str, ...], along: str, point) -> list[Line]:
    """A line along one axis for each setting of the others, where those in fixed are as in the first row.

    point: row -> (x, y). Along guidance its value stands at each point.
    """
    some = [row for row in rows if all(row[axis] == rows[0][axis] for axis in fixed)]
    others = [axis for axis in AXES[1:] if axis not in fixed and axis != along]
    lines = []
    for setting in sorted({tuple(row[axis] for axis in others) for row in some}):
        mine = [row for row in some if tuple(row[axis] for axis in others) == setting]
        mine.sort(key=lambda row: row[along])
        name = ", ".join(
            value if axis == "solver" else f"{axis} {value:g}"
            for axis, value in zip(others, setting)
        )
        labels = tuple(f"{row['guidance']:g}" for row in mine) if along == "guidance" else ()
        lines.append(Line(name, tuple(map(point, mine)), labels))
    return lines


def shown(rows: list[dict], metrics: list[str]) -> tuple[list[tuple], tuple[str, ...]]:
    """The cells of a table of ranked rows, and its head."""
    cells = [
        (
            *(f"{row[a]:g}" if a == "guidance" else row[a] for a in AXES),
            *(f"{row['scores'][m]:.4f}" for m in metrics),
            f"{row['rank']:.2f}",
        )
        for row in rows
    ]
    return cells, (*AXES, *metrics, "mean rank")


def advice(run: Path, row: dict, prompts: str) -> str:
    """The command that draws with the setting of a row."""
    words = {
        "run": run / "checkpoints" / row["checkpoint"],
        "prompts": prompts,
        "steps": row["steps"],
        "solver": row["solver"],
        "guidance": f"{row['guidance']:g}",
        "out": "submission",
    }
    return "python sample.py " + " ".join(
        f"--{name} {shlex.quote(str(value))}" for name, value in words.items()
    )


def summary(file: Path) -> list[str]:
    """What a sweep.json found, as parts of a page: the setting to submit with, the table, the curves."""
    result = read_json(file, dict)
    asked, rows = result["asked"], ranked(result["rows"], result["asked"]["metrics"])
    best, metrics = rows[0], asked["metrics"]
    words = f"{best['checkpoint']}, guidance {best['guidance']:g}, {best['steps']} steps, {best['solver']}"
    readers = [
        (name, *(facts.get(key, "") for key in FACTS)) for name, facts in result["readers"].items()
    ]
    return [
        f"<p>Best of {len(rows)} settings on {len(asked['prompts'])} prompts by the mean rank of "
        f"{', '.join(metrics)}: <b>{words}</b>. What a curve does not vary is as there.</p>",
        commands([result["advice"]]),
        table(*shown(rows, metrics), best=0),
        *charts(rows, metrics),
        folded("Read by", table(readers, ("metric", *FACTS))),
    ]


def prompts_of(settings: dict) -> Path | None:
    """The file of test prompts in the data folder of a run, if there is one."""
    data = Path(settings.get("data") or TOY_FOLDER)
    return next((data / name for name in PROMPT_NAMES if (data / name).is_file()), None)


def sweep(
    run: Path,
    out: Path,
    split: Split,
    grid: list[tuple],
    metrics: list[str],
    *,
    submission: str,
    seed: int,
    batch_size: int,
    device: str,
    overwrite: bool,
    **judges,
) -> dict:
    """Draw and score every (checkpoint folder, guidance, steps, solver) of grid that has no score yet.

    submission: the file of prompts to submit; judges: reference, evaluator and clip, as evaluate takes them
    What scoring needs is loaded, and the references are read, before anything is drawn.
    """
    there = read_json(out / RESULT, dict) if (out / RESULT).is_file() and not overwrite else {}
    asked = {
        "prompts": {prompt.name: prompt.text for prompt in split.prompts},
        "metrics": metrics,
        "seed": seed,
        **{name: str(value) if value else None for name, value in judges.items()},
    }
    for key in asked if there else ():
        if there.get("asked", {}).get(key) != asked[key]:
            raise InputError(
                f"{out / RESULT}: a sweep with other {key}; give another --out, or --overwrite"
            )
    rows, made = there.get("rows", []), {checkpoint: version(checkpoint) for checkpoint, *_ in grid}
    scored = {(*(row[axis] for axis in AXES), row["made"]) for row in rows}
    todo = [
        setting
        for setting in grid
        if (setting[0].name, *setting[1:], made[setting[0]]) not in scored
    ]
    if todo:
        split.write(out)
        judge = partial(
            evaluate,
            prompts=out / PROMPTS,
            device=device,
            metrics=metrics,
            batch_size=batch_size,
            shared={},
            **judges,
        )
        judge(out, drawn=False)
    for checkpoint, guidance, steps, solver in tqdm(todo, "settings", unit="setting"):
        setting = dict(zip(AXES, (checkpoint.name, guidance, steps, solver)))
        same = [row for row in rows if all(row[axis] == setting[axis] for axis in AXES)]
        folder = out / f"{checkpoint.name}_g{guidance:g}_s{steps}_{solver}"
        how = Drawing(steps=steps, solver=make_solver(solver), guidance=guidance)
        sample_images(
            checkpoint,
            split.prompts,
            folder,
            how=how,
            seed=seed,
            batch_size=batch_size,
            device=device,
            overwrite=overwrite or bool(same),
        )
        scores = judge(folder)
        rows = [row for row in rows if row not in same]
        rows.append(
            {
                **setting,
                "step": read_config(checkpoint)["step"],
                "made": made[checkpoint],
                "scores": {name: score["value"] for name, score in scores.items()},
            }
        )
        readers = {
            name: {k: v for k, v in score.items() if k in FACTS} for name, score in scores.items()
        }
        line = advice(run, ranked(rows, metrics)[0], submission)
        result = {"asked": asked, "advice": line, "rows": rows, "readers": readers}
        with replacing(out / RESULT) as temporary:
            temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    with replacing(out / PAGE) as temporary:
        temporary.write_text(
            page(f"Sweep of {run.resolve().name}", summary(out / RESULT)), encoding="utf-8"
        )
    return read_json(out / RESULT, dict)


def version(checkpoint: Path) -> str:
    """A hash of a checkpoint's config.json: of the settings and the progress of its training."""
    return hashlib.sha256((checkpoint / "config.json").read_bytes()).hexdigest()[:16]
