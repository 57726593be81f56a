"""The folder of a run: which one it is, whether it may be written to, and who writes to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

from tinyldm.errors import InputError
from tinyldm.files import locked
from tinyldm.training.checkpoint import checkpoints, find_checkpoint, latest_run, read_config
from tinyldm.training.settings import TrainSettings

LEFT_BY_A_RUN = ("checkpoints", "previews", "sweep", "tensorboard")


@dataclass(frozen=True)
class RunFolder:
    """What the options of train.py say of the run folder.

    out:    the folder; None: the next free number in runs/
    resume: go on with the run that is there; saved is then the config of its newest checkpoint
    """

    out: Path | None
    resume: bool
    overwrite: bool
    saved: dict[str, Any] | None

    @classmethod
    def asked(cls, out: str | None, resume: bool = False, overwrite: bool = False) -> RunFolder:
        """Read --out, --resume and --overwrite; InputError where they do not fit the folder."""
        if overwrite and (resume or out is None):
            raise InputError("--overwrite: expected --out beside it and no --resume")
        folder = None if out is None else Path(out)
        if resume and folder is None:
            folder = latest_run()
        return cls(folder, resume, overwrite, check_run(folder, resume, overwrite))

    @contextmanager
    def claimed(self, name: str) -> Iterator[Path]:
        """The run folder, made or emptied of an old run, and locked against other trainings.

        name: of the data, for a run that nobody named
        """
        folder = free_folder(Path("runs"), name) if self.out is None else self.out
        check_run(folder, self.resume, self.overwrite)  # again: building a cache may take hours
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", busy=f"{folder}: another process is training there"):
            for left in LEFT_BY_A_RUN if self.overwrite else ():
                if (folder / left).exists():
                    shutil.rmtree(folder / left)
            yield folder


def check_run(run: Path | None, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The config of a run to resume, or None for a new one.

    InputError: there is nothing to resume, or something that must not be overwritten.
    """
    if resume:
        assert run is not None
        newest = find_checkpoint(run)
        if newest == run or not (newest / "training.safetensors").is_file():
            raise InputError(
                f"{newest}: can't be resumed; expected a run "
                "whose newest checkpoint has training.safetensors"
            )
        return read_config(newest)
    if run is None or not run.exists() or is_empty(run):
        return None
    if not overwrite:
        raise InputError(f"--out {run}: exists already; expected a new folder, --resume or --overwrite")
    if not (run / "log.csv").is_file() and not checkpoints(run):
        raise InputError(
            f"--out {run}: is no run folder, so --overwrite leaves it alone; expected another --out"
        )
    return None


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but a lock."""
    return folder.is_dir() and all(path.name == ".lock" for path in folder.iterdir())


def free_folder(root: Path, name: str) -> Path:
    """root/name-N, made with the first N that is free."""
    root.mkdir(exist_ok=True)
    for n in count(1):
        try:
            (root / f"{name}-{n}").mkdir()
            return root / f"{name}-{n}"
        except FileExistsError:
            continue
    raise AssertionError("count() never ends")


def of_length(
    settings: TrainSettings, epochs: int | None, images: int, saved: Mapping[str, Any] | None
) -> TrainSettings:
    """The settings with --epochs turned into steps; InputError where the length makes no sense."""
    if epochs is not None:
        steps = ceil(epochs * images / settings.batch_size)
        settings = replace(settings, max_steps=steps)
    if saved is not None and settings.max_steps < saved["step"]:
        raise InputError(
            f"--max-steps {settings.max_steps}: the run has {saved['step']} steps already"
        )
    if settings.perceptual_from >= settings.max_steps:
        raise InputError(
            f"--perceptual-from {settings.perceptual_from}: "
            f"expected less than {settings.max_steps}, all steps"
        )
    return settings
