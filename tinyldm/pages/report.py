"""report.html of a run: what was trained, how it went, what it draws, its scores, how to repeat it.

The functions here gather plain values from the run folder; templates/report.html shows them.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from tinyldm.cli import flag_of
from tinyldm.errors import InputError, say
from tinyldm.folders import numbered, owned_file
from tinyldm.installation import called
from tinyldm.pages.curves import Chart, Line, loss_lines, smoothed, thinned
from tinyldm.pages.html import Picture, Table, embedded, write_page
from tinyldm.pages.ranking import summary
from tinyldm.pages.sweep import RESULT, prompts_of
from tinyldm.tasks.base import Task
from tinyldm.training.checkpoint import (
    WEIGHTS,
    Config,
    conditioning_of,
    find_checkpoint,
    read_config,
    settings_of,
    task_of,
)
from tinyldm.training.chosen import settings_for
from tinyldm.training.log import COLUMNS, LOSS_BY_NOISE, read_log, read_loss_by_noise
from tinyldm.training.settings import TrainSettings
from tinyldm.typed import Index, as_type, read_json, unsealed

REPORT = "report.html"
EARLIER = 8  # previews shown beside the newest
MORE_CURVES = {
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
    "images_per_second": "images/s",
}

Item = TypeVar("Item")
Logged = dict[str, float]  # of a step, a number for each of COLUMNS


@dataclass(frozen=True)
class Preview:
    """The newest preview, the prompts of its pictures row by row, and previews of earlier steps."""

    newest: Picture
    prompts: list[str]
    earlier: list[Picture]


def write_report(run: Path) -> Path:
    """Write report.html into a run folder, from what lies in it; returns the file.

    Raises InputError for a folder without a checkpoint, for a run that was not trained here, and
    for scores or a sweep that cannot be read.
    """
    run = Path(run)
    checkpoint = find_checkpoint(run)
    config = read_config(checkpoint)
    settings = config["settings"]
    if "preset" not in settings:
        raise InputError(f"{checkpoint}: was not trained here; there is nothing to report")
    log = read_steps(run / "log.csv")
    found = run / "sweep" / RESULT
    with owned_file(run / REPORT):
        write_page(
            run / REPORT,
            "report.html",
            title=f"{run.resolve().name}: {settings_of(config).kind_of_network}",
            facts=facts(checkpoint, config, log),
            preview=preview(run, config),
            loss=Chart("Loss", loss_lines(column(log, "loss")), "step", "loss, smoothed", log=True),
            loss_by_noise=loss_by_noise(run / LOSS_BY_NOISE),
            more_curves=[
                Chart(title, (Line("", thinned(column(log, name))),), "step", title)
                for name, title in MORE_CURVES.items()
            ],
            scores={file.name: scores(file) for file in sorted(run.glob("scores*.json"))},
            sweep=summary(found) if found.is_file() else None,
            commands=commands(run, config),
            settings=[(flag_of(name), value) for name, value in settings.items()],
        )
    return run / REPORT


def after_save(run: Path) -> None:
    """write_report() for a training, which must go on whatever becomes of its report."""
    try:
        write_report(run)
    except Exception as error:
        say(f"{run / REPORT}: not written ({type(error).__name__}: {error})", sys.stderr)


def read_steps(file: Path) -> list[Logged]:
    """The steps of a log.csv as numbers; none if there is no such file."""
    steps = []
    for row in read_log(file):
        numbers = [float(value) for value in row]
        steps.append(dict(zip(COLUMNS, numbers, strict=True)))
    return steps


def column(log: list[Logged], name: str) -> list[tuple[float, float]]:
    """A column of the log over the steps."""
    return [(row["step"], row[name]) for row in log]


def loss_by_noise(file: Path) -> Chart:
    """The loss at each level of noise since the last checkpoint; empty for a run without them."""
    points = tuple((math.log10(noise), loss) for noise, loss in read_loss_by_noise(file))
    return Chart("Loss by noise level", (Line("", points),), "log10 of sigma / alpha", "loss")


def facts(checkpoint: Path, config: Config, log: list[Logged]) -> list[tuple[str, Any]]:
    """What a person asks for first, as (name, value)."""
    settings = settings_of(config)
    step = log[-1]["step"] if log else config["step"]
    finished = bool(log) and step >= settings.max_steps
    size = (checkpoint / WEIGHTS).stat().st_size
    parameters = size / 4e6  # in millions, of four bytes each
    height, width = config["size"]
    return [
        ("step", f"{step:.0f} of {settings.max_steps}{', finished' if finished else ''}"),
        ("checkpoint", checkpoint.name),
        ("network", f"{settings.kind_of_network}, {parameters:.1f}M parameters"),
        ("data", settings.data or "toy monsters"),
        ("images", f"{width}x{height}"),
        ("frozen models", f"VAE {config['vae']}, prompts by {reader_of_prompts(config)}"),
        (
            "learns",
            f"{config['prediction']}, {settings.schedule} schedule, "
            f"batches of {settings.batch_size}",
        ),
        ("loss", last_loss(log)),
        ("speed", speed(log, settings.batch_size)),
        ("batches left out", config.get("progress", {}).get("skipped", 0)),
        ("machine", config.get("machine", "not recorded")),
    ]


def reader_of_prompts(config: dict[str, Any]) -> str:
    """What encodes the prompts, in words: the task, and the frozen model if there is one."""
    how = conditioning_of(config)
    return " ".join(str(how[key]) for key in ("task", "name") if key in how)


def last_loss(log: list[Logged]) -> str:
    """The smoothed loss at the end, in words."""
    smooth = smoothed(column(log, "loss"))
    if not smooth:
        return "not yet"
    _, loss = smooth[-1]
    return f"{loss:.4f} (smoothed)"


def speed(log: list[Logged], batch_size: int) -> str:
    """The median speed and the time spent in optimiser steps, in words."""
    speeds = [row["images_per_second"] for row in log]
    typical = median(speeds) if speeds else 0.0
    seconds = sum(batch_size / speed for speed in speeds if speed)
    return f"{typical:.4g} images/s, {seconds / 60:.0f} minutes of training steps"


def preview(run: Path, config: dict[str, Any]) -> Preview | None:
    """The newest preview and some earlier ones; None if there are none yet."""
    files = numbered(run / "previews", ".png")
    if not files:
        return None
    return Preview(
        newest=embedded(files[-1], step_of(files[-1]), widest=1056),
        prompts=config["preview_prompts"] if task_of(config).prompted else [],
        earlier=[embedded(f, step_of(f), widest=320) for f in first_to_last(files[:-1], EARLIER)],
    )


def first_to_last(items: list[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def step_of(file: Path) -> str:
    """The step in the name of a preview, in words."""
    return f"step {int(file.stem.removeprefix('step-'))}"


@dataclass(frozen=True)
class Score:
    """What is read of a score; no value: it is infinite."""

    value: float | None
    n: Index
    extractor: str


@dataclass(frozen=True)
class Scores:
    """What is read of a file of scores."""

    scores: dict[str, Score]


def scores(file: Path) -> Table:
    """The scores in a file that `python -m tinyldm evaluate --out` wrote."""
    wrong = f"not scores of {called('python -m tinyldm')} evaluate"
    rows = []
    content = read_json(file, dict[str, Any], wrong=wrong)
    read = as_type(content, str(file), Scores, extra="ignore", wrong=wrong)
    unsealed(content, str(file))
    for name, score in read.scores.items():
        value = "infinite" if score.value is None else f"{score.value:.4f}"
        rows.append((name, value, score.n, score.extractor))
    return Table(("metric", "value", "n", "read by"), rows)


def commands(run: Path, config: dict[str, Any]) -> list[str]:
    """The command lines that train this run again, draw from it, score that, and report."""
    folder = shlex.quote(str(run))
    samples = shlex.quote(f"samples/{run.resolve().name}")
    prompts = prompts_of(config)
    asked = f" --prompts {shlex.quote(str(prompts))}" if prompts else ""
    others = called("python -m tinyldm")
    train = command_line(config["settings"], task_of(config))
    if "base" in config:  # the run that it adapts, which no setting names
        train += f" --from {shlex.quote(config['base']['checkpoint'])}"
    lines = [
        train,
        f"{called('python sample.py')} --run {folder}{asked} --out {samples}",
    ]
    if prompts:
        lines.append(f"{others} evaluate {samples}{asked} --out {folder}/scores.json")
    lines.append(f"{others} report {folder}")
    return lines


def command_line(settings: Mapping[str, Any], task: Task) -> str:
    """The train.py command with these settings: what differs from the defaults for such data."""
    wanted = TrainSettings.from_dict(settings)
    given = {}
    if wanted.data is not None:
        given = {name: getattr(wanted, name) for name in ("data", "vae", "size")}
        if any(layout.asked for layout in task.layouts):  # the files may not say so by themselves
            given["task"] = wanted.task
    default = settings_for(given, wanted.size, task)
    path = ("schedule", "prediction")
    if any(getattr(wanted, name) != getattr(default, name) for name in path):
        given |= {name: getattr(wanted, name) for name in path}  # one decides the other's default
    words: list[str] = []
    for f in fields(wanted):
        value = getattr(wanted, f.name)
        if f.name not in given and value == getattr(default, f.name):
            continue
        flag = flag_of(f.name)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-"))
        elif f.name == "size":
            words += [flag, "x".join(map(str, value[::-1]))]
        else:
            words += [flag, str(value)]
    return f"{called('python train.py')} {shlex.join(words)}".strip()
