"""What a sweep found: its settings by rank, its curves, and their summary for a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinyldm.errors import shortened
from tinyldm.installation import called
from tinyldm.pages.curves import Chart, Line
from tinyldm.pages.html import Table
from tinyldm.scores.metrics import METRICS
from tinyldm.typed import Count, Index, Limits, as_type, read_json, unsealed

AXES = ("checkpoint", "guidance", "steps", "solver")
MORE_AXES = ("ema_length", "guide", "guide_scale")
"""Axes that a row need not have a value for: an average as saved, no guide. Shown if one has."""
FACTS = ("n", "extractor", "preprocessing", "reference", "reference n")  # shown of each score
COUNTED = {"n", "reference n"}  # of these facts, those that are numbers

Row = dict[str, Any]
"""A scored setting in sweep.json; see Scored."""

Score = Annotated[float, Limits(ge=-1e30, le=1e30)]  # what a chart can show


@dataclass(frozen=True)
class Scored:
    """A scored setting in sweep.json: a value for each of AXES, and what came of it.

    ema_length, guide, guide_scale: as for sample.py; None as without these options

    step:   how long the checkpoint was trained
    made:   its version
    scores: metric -> value
    """

    checkpoint: str
    guidance: Score
    steps: Count
    solver: str
    step: Index
    made: str
    scores: dict[str, Score]
    ema_length: Score | None = None
    guide: str | None = None
    guide_scale: Score | None = None


@dataclass(frozen=True)
class Asked:
    """What decides the scores besides the setting, as far as a page shows it."""

    prompts: dict[str, str]
    metrics: Annotated[list[str], Limits(min_length=1)]


@dataclass(frozen=True)
class Content:
    """The type of what is read of a sweep.json."""

    asked: Asked
    advice: str
    rows: Annotated[list[Scored], Limits(min_length=1)]
    readers: dict[str, dict[str, str | int | None]]

    def __post_init__(self) -> None:
        for metric in self.asked.metrics:
            if metric not in METRICS or not all(metric in row.scores for row in self.rows):
                raise ValueError(f"{shortened(metric)}: no metric that every row has a score of")
        for facts in self.readers.values():
            for name in COUNTED & facts.keys():
                if not isinstance(facts[name], int):
                    raise ValueError(f"readers: {name}: expected a number of pictures")


def ranked(rows: Iterable[Row], metrics: list[str]) -> list[Row]:
    """The rows, each with its mean "rank" over the metrics, the best first.

    Equal scores share a rank. Of equal mean ranks, the one with fewer steps comes first.
    """
    rows = list(rows)
    order = {}
    for metric in metrics:
        values = {row["scores"][metric] for row in rows}
        order[metric] = sorted(values, reverse=METRICS[metric].best == "highest")
    found = []
    for row in rows:
        ranks = [order[metric].index(row["scores"][metric]) + 1 for metric in metrics]
        found.append({**row, "rank": sum(ranks) / len(metrics)})
    axes = AXES + MORE_AXES
    return sorted(
        found, key=lambda row: (row["rank"], row["steps"], [str(row.get(a)) for a in axes])
    )


def ranking(rows: list[Row], metrics: list[str]) -> Table:
    """Ranked rows as a table."""
    more = [axis for axis in MORE_AXES if any(row.get(axis) is not None for row in rows)]
    cells = []
    for row in rows:
        setting = [row["checkpoint"], f"{row['guidance']:g}", row["steps"], row["solver"]]
        setting += [shown(row.get(axis)) for axis in more]
        scores = [f"{row['scores'][metric]:.4f}" for metric in metrics]
        cells.append((*setting, *scores, f"{row['rank']:.2f}"))
    heads = [axis.replace("_", " ") for axis in more]
    return Table((*AXES, *heads, *metrics, "mean rank"), cells)


def shown(value: float | str | None) -> str:
    """The value of one of MORE_AXES as a table shows it."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:g}"


def in_words(row: Row) -> str:
    """The setting of a row in words."""
    words = f"{row['checkpoint']}, guidance {row['guidance']:g}, {row['steps']} steps, "
    words += row["solver"]
    if row.get("ema_length") is not None:
        words += f", ema length {row['ema_length']:g}"
    if row.get("guide") is not None:
        words += f", guided by {row['guide']} at {shown(row.get('guide_scale'))}"
    return words


@dataclass(frozen=True)
class Summary:
    """What a sweep found, as a page shows it."""

    settings: int  # how many were scored
    prompts: int  # how many were drawn for each
    metrics: list[str]
    best: str  # the best setting, in words
    advice: str  # the command that draws with it
    ranking: Table  # all settings, the best first
    charts: list[Chart]
    readers: Table  # what read the scores off the pictures


def read_sweep(file: Path) -> dict[str, Any]:
    """The content of a sweep.json, which may have come from anywhere."""
    content: dict[str, Any] = read_json(file, dict[str, Any])
    wrong = f"not a sweep of {called('python -m tinyldm')} sweep"
    as_type(content, str(file), Content, extra="ignore", wrong=wrong)
    return unsealed(content, str(file))


def summary(file: Path) -> Summary:
    """The summary of a sweep.json."""
    result = read_sweep(file)
    metrics = result["asked"]["metrics"]
    rows = ranked(result["rows"], metrics)
    best = rows[0]
    readers = [
        (name, *(facts.get(key, "") for key in FACTS)) for name, facts in result["readers"].items()
    ]
    return Summary(
        settings=len(rows),
        prompts=len(result["asked"]["prompts"]),
        metrics=metrics,
        best=in_words(best),
        advice=result["advice"],
        ranking=ranking(rows, metrics),
        charts=charts(rows, metrics),
        readers=Table(("metric", *FACTS), readers),
    )


def charts(rows: list[Row], metrics: list[str]) -> list[Chart]:
    """Curves of ranked rows; where nothing varies along an axis, there is no chart of it.

    Each metric is drawn against steps, the scale of a guide and the length of the average and over
    the training, and CLIP-T against each distance, along guidance.
    """
    found = []
    for metric in metrics:
        for axis in ("ema_length", "guide_scale"):
            having = [row for row in rows if row.get(axis) is not None]
            if having and _vary(having, axis):
                lines = lines_of(having, fixed=("checkpoint",), along=axis, x=axis, y=metric)
                name = axis.replace("_", " ")
                found.append(Chart(f"{metric} against {name}", lines, name, metric))
        if _vary(rows, "steps"):
            lines = lines_of(rows, fixed=("checkpoint",), along="steps", x="steps", y=metric)
            found.append(Chart(f"{metric} against steps", lines, "steps", metric))
        if _vary(rows, "step"):
            setting = ("guidance", "steps", "solver", *MORE_AXES)
            lines = lines_of(rows, fixed=setting, along="step", x="step", y=metric)
            found.append(Chart(f"{metric} over the training", lines, "training step", metric))
        distance = METRICS[metric].best == "lowest"
        if _vary(rows, "guidance") and distance and "clip-t" in metrics:
            lines = lines_of(rows, fixed=("checkpoint",), along="guidance", x=metric, y="clip-t")
            title = f"clip-t against {metric}, over guidance"
            found.append(Chart(title, lines, metric, "clip-t"))
    return found


def _vary(rows: list[Row], key: str) -> bool:
    return len({row.get(key) for row in rows}) > 1


def lines_of(
    rows: list[Row], *, fixed: tuple[str, ...], along: str, x: str, y: str
) -> tuple[Line, ...]:
    """A line for each setting of the axes that are neither fixed nor `along`.

    fixed: axes on which only rows that agree with the first, the best one, are drawn
    along: what orders the points of a line; where it is guidance, its value stands at each point
    x, y:  what a point shows: keys of a row, or metrics
    """
    drawn = [row for row in rows if all(row.get(axis) == rows[0].get(axis) for axis in fixed)]
    others = [axis for axis in (*AXES[1:], *MORE_AXES) if axis not in (*fixed, along)]
    groups: dict[tuple, list[Row]] = {}
    for row in drawn:
        groups.setdefault(tuple(row.get(axis) for axis in others), []).append(row)
    lines = []
    for setting, group in sorted(groups.items(), key=lambda item: _sortable(item[0])):
        group.sort(key=lambda row: row[along])
        words = []
        for axis, value in zip(others, setting, strict=True):
            if value is not None:
                name = "" if axis == "solver" else axis.replace("_", " ") + " "
                words.append(f"{name}{shown(value)}")
        points = tuple((_quantity(row, x), _quantity(row, y)) for row in group)
        labels: tuple[str, ...] = ()
        if along == "guidance":
            labels = tuple(f"{row['guidance']:g}" for row in group)
        lines.append(Line(", ".join(words), points, labels))
    return tuple(lines)


def _sortable(setting: tuple) -> list[tuple]:
    """Values of axes for sorting: one that is None comes first."""
    return [(value is not None, value) for value in setting]


def _quantity(row: Row, name: str) -> float:
    return float(row["scores"][name] if name in row["scores"] else row[name])
