"""The folder of a run: which one it is, whether it may be written, and who writes to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from tinyldm.errors import InputError
from tinyldm.files import is_empty, locked
from tinyldm.training.checkpoint import (
    checkpoints,
    find_checkpoint,
    latest_run,
    offering_the_one_before,
    read_config,
    sketch_network,
)
from tinyldm.training.processes import Processes
from tinyldm.training.settings import TrainSettings

LEFT_BY_A_RUN = ("checkpoints", "previews", "sweep", "tensorboard")


@dataclass(frozen=True)
class RunFolder:
    """What the options of train.py say about its run folder.

    out:    the folder; None: the next free number in runs/
    saved:  the config of the newest checkpoint of a run that is to be resumed, else None
    epochs: the length of the training in passes over the data, if it was given that way
    """

    out: Path | None
    resume: bool = False
    overwrite: bool = False
    epochs: int | None = None
    saved: dict[str, Any] | None = None

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> tuple[RunFolder, dict[str, Any]]:
        """Read --out, --resume, --overwrite and --epochs; returns the other options as well.

        InputError: they contradict each other, or what is in the folder.
        """
        given = dict(options)
        out = given.pop("out", None)
        epochs = given.pop("epochs", None)
        resume = given.pop("resume", False)
        overwrite = given.pop("overwrite", False)
        if overwrite and (resume or out is None):
            raise InputError("--overwrite: expected --out with it and no --resume")
        if epochs is not None and "max_steps" in given:
            raise InputError(f"--epochs {epochs}: expected no --max-steps with it")
        folder = None if out is None else Path(out)
        if resume and folder is None:
            folder = latest_run()
        saved = check_run(folder, resume, overwrite)
        run = cls(folder, resume=resume, overwrite=overwrite, epochs=epochs, saved=saved)
        return run, given

    def settings_given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options given; for a run to resume, all its settings with the allowed changes."""
        if self.saved is None:
            return dict(given)
        return TrainSettings.from_dict(self.saved["settings"]).resumed(given).to_dict()

    def of_length(self, settings: TrainSettings, images: int) -> TrainSettings:
        """The settings with --epochs turned into steps.

        InputError: the run has more steps already, or the perceptual term would never count.
        """
        if self.epochs is not None:
            steps = ceil(self.epochs * images / settings.batch_size)
            settings = replace(settings, max_steps=steps)
        if self.saved is not None and settings.max_steps < self.saved["step"]:
            raise InputError(
                f"--max-steps {settings.max_steps}: "
                f"{self.out} has {self.saved['step']} steps already"
            )
        if settings.perceptual_from >= settings.max_steps:
            raise InputError(
                f"--perceptual-from {settings.perceptual_from}: "
                f"expected less than {settings.max_steps}, the number of steps"
            )
        return settings

    def check_data(self, folder: Path, key: str) -> None:
        """InputError if the run was trained on other data than that of the cache with this key."""
        if self.saved is not None and self.saved.get("data", key) != key:
            raise InputError(
                f"{folder}: images or captions are not those that the run was trained on; "
                "start another run with --out"
            )

    @contextmanager
    def claimed(self, name: str, processes: Processes) -> Iterator[Path]:
        """The run folder, created or cleared of an old run, and locked for this process.

        name: of the data, for a run that nobody named. The main process alone writes to the folder;
        the others get a path that they only read from.
        """
        if not processes.is_main:
            yield self.out or Path()
            return
        folder = free_folder(Path("runs"), name) if self.out is None else self.out
        if self.out is not None:  # again, for building the cache may have taken hours
            check_run(folder, self.resume, self.overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", busy=f"{folder}: another process is training there"):
            if self.overwrite:
                for name in LEFT_BY_A_RUN:
                    if (folder / name).exists():
                        shutil.rmtree(folder / name)
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
        saved = read_config(newest)
        with offering_the_one_before(newest):
            sketch_network(newest, saved)
        return saved
    if run is None or not run.exists() or is_empty(run):
        return None
    if not overwrite:
        raise InputError(
            f"--out {run}: exists already; expected a new folder, --resume or --overwrite"
        )
    if not (run / "log.csv").is_file() and not checkpoints(run):
        raise InputError(
            f"--out {run}: is no run folder, so --overwrite leaves it alone; expected another --out"
        )
    return None


def free_folder(root: Path, name: str) -> Path:
    """Make root/name-N with the first N that is free."""
    root.mkdir(exist_ok=True)
    n = 1
    while True:
        folder = root / f"{name}-{n}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            n += 1
