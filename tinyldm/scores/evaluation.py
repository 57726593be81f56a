"""Scores a folder of images by every metric for which enough is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyldm.data.examples import Prompt, Request, images_in, images_of
from tinyldm.device import pick_device
from tinyldm.errors import InputError, say
from tinyldm.installation import called
from tinyldm.sampling.folder import RECORD, read_record_file
from tinyldm.scores.comparison import Comparison
from tinyldm.scores.distances import MOMENTS
from tinyldm.scores.evaluator import Evaluator
from tinyldm.scores.files import check_requested, check_sizes
from tinyldm.scores.metrics import CLIP, METRICS, TOYS
from tinyldm.spelling import nearest
from tinyldm.tasks.base import Task, find_task, task_of_prompts
from tinyldm.tasks.landscape import Scene
from tinyldm.training.checkpoint import read_config, task_of

ONLY_FOR = {  # options that a single metric looks at -> that metric
    "size": "reconstruction",
    "evaluator": "evaluator",
    "moments": "fid",
    "inception": "fid",
    "pytorch-fid": "pytorch-fid",
}

WITHOUT_EVALUATOR = (
    "labels and maps are read off pictures by a network, expected --evaluator FOLDER (made by "
    f"{called('python -m tinyldm')} evaluator train --data FOLDER --out FOLDER)"
)


@dataclass(frozen=True, kw_only=True)
class Job(Comparison):
    """A folder of images to score, and all that was given to score it by.

    images:       the folder
    prompts_file: a file of prompts, and `requests` what it asks for: one for each of `files`
    vae:          an autoencoder, as --vae names it; size: pixels that images are squashed to for it
    task:         that the prompts are for; None where there are none
    """

    images: Path
    prompts_file: Path | None = None
    requests: tuple[Request, ...] = ()
    vae: str | None = None
    size: int | None = None
    evaluator: Evaluator | None = None
    task: Task | None = None

    @property
    def with_captions(self) -> bool:
        """Whether the prompts are sentences, which CLIP can compare with pictures."""
        return self.task is not None and self.task.captions

    @property
    def lacks_evaluator(self) -> bool:
        """Whether an evaluator could read off the pictures what they show, but none is given."""
        if self.evaluator is not None or self.task is None:
            return False
        return self.task.judge(()) is not None

    @property
    def prompts(self) -> list[Prompt]:
        """What each of the files was to show."""
        return [request.prompt for request in self.requests]

    @property
    def style_files(self) -> list[Path]:
        """The images whose style the files are to have, as far as the prompts name any."""
        found = []
        for prompt in self.prompts:
            scene = Scene.of(prompt)
            map_file, style_file = scene.map_file, scene.reference_file
            if map_file is None or style_file is None:
                continue
            if map_file.is_file() and style_file.is_file():
                found.append(style_file)
        return found

    @property
    def with_references(self) -> bool:
        """Whether every prompt names an image whose style it is to have."""
        return 0 < len(self.style_files) == len(self.requests)

    @property
    def of_toys(self) -> bool:
        """Whether the prompts are the toy set's, explained by a file beside them."""
        return is_toy_set(self.prompts_file)


def is_toy_set(prompts_file: Path | None) -> bool:
    """Whether a file of prompts is the toy set's."""
    return prompts_file is not None and prompts_file.with_name(TOYS).is_file()


def evaluate(
    images: str | Path,
    prompts: str | Path | None = None,
    vae: str | None = None,
    size: int | None = None,
    device: str = "auto",
    *,
    reference: str | Path | None = None,
    moments: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    clip: str | None = None,
    inception: str | None = None,
    pytorch_fid: str | None = None,
    evaluator: str | Path | None = None,
    batch_size: int = 64,
    shared: dict | None = None,
    drawn: bool = True,
) -> dict[str, dict]:
    """The scores of a folder of images, metric -> values, by the metrics named or all that apply.

    The options are those of `python -m tinyldm evaluate`; shared: see Comparison.
    drawn=False: there are no images yet, and so no scores, but an InputError now for anything else
    that is missing.
    """
    folder = Path(images)
    files = tuple(images_in(folder))
    real = Real.read(reference, moments)
    where = pick_device(device)
    judge = Evaluator.load(evaluator, where) if evaluator is not None else None
    record = read_record(folder)
    task = prompts_task(prompts, judge, record)
    requests = read_prompts(prompts, task, record)
    if requests:
        if drawn:
            check_requested(folder, requests, record)
        files = tuple(folder / request.name for request in requests)
    if not files and (real.folder or not vae):
        raise InputError(f"{folder}: no images there, expected some to score")
    job = Job(
        files=files,
        texts=tuple(request.text for request in requests),
        reference=real.folder,
        references=real.files,
        moments=real.moments,
        clip=clip or default_clip(prompts),
        weights={"torchvision": inception, "pytorch-fid": pytorch_fid},
        batch_size=batch_size,
        device=where,
        shared={} if shared is None else shared,
        images=folder,
        prompts_file=Path(prompts) if prompts is not None else None,
        requests=requests,
        vae=drawn_by(record) if vae is None and prompts is not None else vae,
        size=size,
        evaluator=judge,
        task=task,
    )
    given = {"size": size, "evaluator": evaluator, "moments": moments}
    given |= {"inception": inception, "pytorch-fid": pytorch_fid}
    return score(job, choose(job, metrics, given), drawn)


def score(job: Job, chosen: Sequence[str], drawn: bool = True) -> dict[str, dict]:
    """Load what the chosen metrics need, all of it before the first score, and score."""
    if drawn and chosen != ["reconstruction"]:  # which itself says what it cannot read
        check_sizes(job.files)
    for name in chosen:
        METRICS[name].load(job)
    if not drawn:
        return {}
    return {name: METRICS[name].score(job) for name in chosen}


@dataclass(frozen=True)
class Real:
    """What images are compared with: a folder, the images in it, and the folder of moments."""

    folder: Path | None
    files: tuple[Path, ...]
    moments: Path | None

    @classmethod
    def read(cls, reference: str | Path | None, moments: str | Path | None) -> Real:
        """From --reference and --moments; the moments may also lie in the folder of references."""
        given = Path(moments) if moments is not None else None
        if reference is None:
            return cls(None, (), given)
        folder = Path(reference)
        files = tuple(images_of(folder))
        beside = any((folder / name).exists() for name in MOMENTS)
        if given is None and beside:
            given = folder
        elif not files:
            raise InputError(f"{folder}: no images there, nor {' and '.join(MOMENTS)}")
        return cls(folder, files, given)


def prompts_task(
    file: str | Path | None, judge: Evaluator | None, record: Mapping[str, Any]
) -> Task | None:
    """The task that prompts are for: the judge's, that of the file, or of the run that drew."""
    if judge is not None:
        return find_task(judge.task)
    if file is None:
        return None
    task = task_of_prompts(Path(file))
    with suppress(InputError, KeyError, TypeError):  # drawn elsewhere, or with a run that is gone
        drawn_for = task_of(read_config(Path(record["checkpoint"])))
        task = task if task.reads(Path(file)) else drawn_for
    return task


def read_prompts(
    file: str | Path | None, task: Task | None, record: Mapping[str, Any]
) -> tuple[Request, ...]:
    """The requests in a file of prompts; without one, what the pictures were drawn from."""
    if task is None:
        return ()
    if file is not None:
        return tuple(task.requests(Path(file)))
    return tuple(
        Request(name, task.prompt(text)) for name, text in record.get("images", {}).items()
    )


def read_record(folder: Path) -> dict[str, Any]:
    """What sample.py wrote about the images in a folder; empty where they come from elsewhere."""
    file = folder / RECORD
    return read_record_file(file) if file.is_file() else {}


def drawn_by(record: Mapping[str, Any]) -> str | None:
    """The autoencoder that made pictures, by their record; None where pixels were drawn."""
    vae = record.get("vae")
    return None if vae == "none" else vae


def default_clip(prompts: str | Path | None) -> str:
    """The CLIP to score by where none is named: the assignments', or for toys the tiny one."""
    toys = prompts is not None and is_toy_set(Path(prompts))
    return "tiny" if toys else CLIP


def choose(job: Job, asked: Sequence[str] | None, given: Mapping[str, Any]) -> list[str]:
    """The metrics asked for, all of which must apply; or, where none are, those that suit the job.

    given: the value of each option of ONLY_FOR; one that no chosen metric would look at is refused.
    """
    for name in asked or ():
        if name not in METRICS:
            known = f"expected some of {', '.join(METRICS)}{nearest(name, METRICS)}"
            raise InputError(f"--metrics {name}: {known}")
        if not METRICS[name].applies(job):
            raise InputError(f"--metrics {name}: needs {METRICS[name].needs}")
    chosen = list(asked) if asked else suiting(job)
    if job.lacks_evaluator and not chosen:
        raise InputError(f"{job.prompts_file}: {WITHOUT_EVALUATOR}")
    if job.lacks_evaluator and not asked:
        say(f"without evaluator: {WITHOUT_EVALUATOR}")
    for option, value in given.items():
        metric = ONLY_FOR[option]
        if value is not None and metric not in chosen:
            raise InputError(
                f"--{option} {value}: belongs to {metric} alone, "
                f"which needs {METRICS[metric].needs}"
            )
    if not chosen:
        needs = [f"{name} needs {metric.needs}" for name, metric in METRICS.items()]
        raise InputError(f"nothing to score by: {'; '.join(needs)}")
    if not asked or "clip-i" in asked:
        job.check_pairs()
    return chosen


def suiting(job: Job) -> list[str]:
    """The metrics that apply to a job and mean something there.

    Inception knows photographs and scores no toys; CLIP reads captions, not labels or maps.
    """
    chosen = []
    captions = job.with_captions and job.evaluator is None and not job.with_references
    for name, metric in METRICS.items():
        if not metric.applies(job):
            continue
        if job.of_toys and name in ("fid", "pytorch-fid"):
            continue
        if name == "clip-t" and not captions:
            continue
        chosen.append(name)
    return chosen
