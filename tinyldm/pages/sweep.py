"""A sweep: which checkpoint, guidance, average, guide, how many steps? Draws and scores a grid.

RUN/sweep/
    prompts.json held_out/        the prompts drawn for every setting; their real images, if the
                                  training left some out
    step-0001000_g3_s25_dpm++/    the pictures of one setting
    sweep.json sweep.html         what was asked, the scores of each setting, and their curves
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from tinyldm.errors import InputError
from tinyldm.files import write_text
from tinyldm.folders import is_empty, owned
from tinyldm.installation import called
from tinyldm.pages.html import write_page
from tinyldm.pages.ranking import (
    AXES,
    FACTS,
    MORE_AXES,
    Row,
    ranked,
    read_sweep,
    shown,
    summary,
)
from tinyldm.sampling.guide import load_guide
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing, make_solver
from tinyldm.scores.evaluation import evaluate
from tinyldm.scores.held_out import PROMPTS, Validation
from tinyldm.toy.folder import TOY_FOLDER
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import read_config, task_of
from tinyldm.training.data import find_test_prompts
from tinyldm.training.run import SWEEP
from tinyldm.typed import sealed

RESULT, PAGE = "sweep.json", "sweep.html"

Scorer = Callable[..., dict[str, dict]]
"""A folder of pictures -> metric -> what is said of it; see evaluate()."""


@dataclass(frozen=True)
class Setting:
    """One way to draw: a checkpoint folder, a guidance scale, so many steps, a solver's name.

    ema_length:         of the average to draw with; None: the one that was saved
    guide, guide_scale: a checkpoint folder for autoguidance and its scale, or None
    """

    checkpoint: Path
    guidance: float
    steps: int
    solver: str
    ema_length: float | None = None
    guide: Path | None = None
    guide_scale: float | None = None

    @property
    def folder(self) -> str:
        """The name of the folder of its pictures."""
        name = f"{self.checkpoint.name}_g{self.guidance:g}_s{self.steps}_{self.solver}"
        if self.ema_length is not None:
            name += f"_ema{self.ema_length:g}"
        if self.guide is not None:
            place = hashlib.sha256(str(self.guide).encode()).hexdigest()[:8]
            name += f"_guide-{self.guide.name}-{place}_w{self.guide_scale:g}"
        return name

    @property
    def version(self) -> str:
        """A hash of what its checkpoint, and that of its guide, say of themselves."""
        return version(self.checkpoint) + (version(self.guide) if self.guide else "")

    def drawing(self) -> Drawing:
        """How to draw with it."""
        return Drawing(
            steps=self.steps,
            solver=make_solver(self.solver),
            guidance=self.guidance,
            ema_length=self.ema_length,
            guide=self.guide,
            guide_scale=self.guide_scale,
        )

    def check(self) -> None:
        """InputError if its average cannot be put together, or its guide cannot guide it."""
        if self.ema_length is not None or self.guide is not None:
            checkpoint = load_averaged(self.checkpoint, ema_length=self.ema_length)
            load_guide(checkpoint, self.drawing(), torch.device("cpu"))

    def axes(self) -> Row:
        """The setting as sweep.json records it: a value for each axis that it makes use of."""
        found: Row = {
            "checkpoint": self.checkpoint.name,
            "guidance": self.guidance,
            "steps": self.steps,
            "solver": self.solver,
        }
        more = {
            "ema_length": self.ema_length,
            "guide": None if self.guide is None else str(self.guide),
            "guide_scale": self.guide_scale,
        }
        return found | {axis: value for axis, value in more.items() if value is not None}

    def matches(self, row: Row) -> bool:
        """Whether a row holds scores of this setting."""
        axes = self.axes()
        return all(row.get(axis) == axes.get(axis) for axis in (*AXES, *MORE_AXES))


@dataclass(frozen=True)
class Sweep:
    """What is drawn and by what it is judged, the same for every setting.

    run, out:   the run folder, and the folder of the sweep
    validation: the prompts to draw, with their real images where there are some
    metrics:    what to score by, names of METRICS
    judges:     reference, evaluator and clip, as evaluate() takes them
    submission: what sample.py is asked to draw, for the advice: its option and the value
    seed:       of the noise, which is the same for every setting
    """

    run: Path
    out: Path
    validation: Validation
    metrics: list[str]
    judges: dict[str, Any]
    submission: tuple[str, str]
    seed: int = 0
    batch_size: int = 32
    device: str = "auto"

    def asked(self) -> dict[str, Any]:
        """What decides the scores besides the setting. Only under the same can they be compared."""
        judges = {name: str(value) if value else None for name, value in self.judges.items()}
        return {
            "prompts": {prompt.name: prompt.text for prompt in self.validation.prompts},
            "metrics": self.metrics,
            "seed": self.seed,
            **judges,
        }

    def judge(self) -> Scorer:
        """evaluate() for this sweep, a function of the folder of pictures.

        What scoring needs is loaded, and the references are read, now: before anything is drawn.
        """
        judge: Scorer = partial(
            evaluate,
            prompts=self.out / PROMPTS,
            device=self.device,
            metrics=self.metrics,
            batch_size=self.batch_size,
            shared={},
            **self.judges,
        )
        judge(self.out, drawn=False)
        return judge

    def draw(self, setting: Setting, overwrite: bool) -> Path:
        """The folder of pictures of one setting, drawn now as far as they are not there."""
        folder = self.out / setting.folder
        sample_images(
            setting.checkpoint,
            self.validation.prompts,
            folder,
            how=setting.drawing(),
            seed=self.seed,
            batch_size=self.batch_size,
            device=self.device,
            overwrite=overwrite,
        )
        return folder


def sweep(job: Sweep, grid: list[Setting], overwrite: bool = False) -> dict[str, Any]:
    """Draw and score every setting of the grid that has no score yet.

    Returns what sweep.json then holds, and writes sweep.html beside it.
    overwrite: forget the scores and pictures that are there.
    InputError: the folder holds something else, or another process draws there.
    """
    if job.out.exists() and not is_empty(job.out) and not SWEEP.holds(job.out):
        raise InputError(f"--out {job.out}: not empty, and holds no sweep; choose another folder")
    with owned(job.out, SWEEP):
        return draw_and_score(job, grid, overwrite)


def draw_and_score(job: Sweep, grid: list[Setting], overwrite: bool) -> dict[str, Any]:
    """The sweep, in a folder that this process owns."""
    result = {} if overwrite else _read_earlier(job)
    rows: list[Row] = result.get("rows", [])
    made = {setting: setting.version for setting in grid}
    todo = []
    for setting in grid:
        scored = [row["made"] for row in rows if setting.matches(row)]
        if made[setting] not in scored:
            todo.append(setting)
    check_settings(todo)  # before anything is drawn
    if todo:
        judge = ready(job)
    for setting in tqdm(todo, "settings", unit="setting"):
        outdated = any(setting.matches(row) for row in rows)  # of a checkpoint trained anew
        scores = judge(job.draw(setting, overwrite or outdated))
        rows = [row for row in rows if not setting.matches(row)]
        rows.append(
            {
                **setting.axes(),
                "step": read_config(setting.checkpoint)["step"],
                "made": made[setting],
                "scores": {name: score["value"] for name, score in scores.items()},
            }
        )
        result = {
            "asked": job.asked(),
            "advice": advice(job.run, ranked(rows, job.metrics)[0], job.submission),
            "rows": rows,
            "readers": {name: _facts(score) for name, score in scores.items()},
        }
        write_text(job.out / RESULT, json.dumps(sealed(result), indent=1, ensure_ascii=False))
    write_page(
        job.out / PAGE,
        "sweep.html",
        title=f"Sweep of {job.run.resolve().name}",
        summary=summary(job.out / RESULT),
    )
    return read_sweep(job.out / RESULT)


def check_settings(todo: Iterable[Setting]) -> None:
    """Setting.check(), once for all settings of a checkpoint, an average and a guide."""
    different = {}
    for setting in todo:
        different[setting.checkpoint, setting.ema_length, setting.guide] = setting
    for setting in different.values():
        setting.check()


def ready(job: Sweep) -> Scorer:
    """Write the prompts, and return the judge; without one, a new sweep leaves no prompts."""
    job.validation.write(job.out)
    try:
        return job.judge()
    except Exception:
        if not (job.out / RESULT).exists():
            job.validation.remove(job.out)
        raise


def _read_earlier(job: Sweep) -> dict[str, Any]:
    """The sweep.json that is there, if any; InputError if it answers another question."""
    file = job.out / RESULT
    if not file.is_file():
        return {}
    result = read_sweep(file)
    for key, value in job.asked().items():
        if result["asked"].get(key) != value:
            raise InputError(
                f"{file}: a sweep with other {key}; give another --out, or --overwrite"
            )
    return result


def _facts(score: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in score.items() if key in FACTS}


def version(checkpoint: Path) -> str:
    """A hash of a checkpoint's config.json, which tells its settings and its progress."""
    return hashlib.sha256((checkpoint / "config.json").read_bytes()).hexdigest()[:16]


def prompts_of(config: dict[str, Any]) -> Path | None:
    """The file of test prompts in the data folder of a run, if it has one."""
    data = Path(config["settings"].get("data") or TOY_FOLDER)
    return find_test_prompts(task_of(config), data)


def advice(run: Path, row: Row, submission: tuple[str, str]) -> str:
    """The command that draws with the setting of a row."""
    asked, value = submission
    options = {
        "run": run / "checkpoints" / row["checkpoint"],
        asked: value,
        "steps": row["steps"],
        "solver": row["solver"],
        "guidance": f"{row['guidance']:g}",
    }
    for axis in MORE_AXES:
        if row.get(axis) is not None:
            options[axis.replace("_", "-")] = shown(row[axis])
    options["out"] = "submission"
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return f"{called('python sample.py')} {shlex.join(words)}"
