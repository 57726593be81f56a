"""The folder of a run: which one it is, whether it may be written, and who writes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from tinyldm.data.checksums import Damaged
from tinyldm.errors import InputError, say
from tinyldm.folders import (
    LOCK,
    Kind,
    foreign,
    is_empty,
    locked,
    owned,
    remove_written,
    written,
)
from tinyldm.processes import Processes
from tinyldm.training.checkpoint import (
    FORMAT,
    STATE,
    Config,
    checkpoints,
    find_checkpoint,
    latest_run,
    naming_file,
    offering_the_one_before,
    read_config,
    settings_of,
    sketch_network,
)
from tinyldm.training.learning_rate import highest_rate
from tinyldm.training.log import read_log
from tinyldm.training.settings import TrainSettings
from tinyldm.typed import read_json


def has_checkpoint(run: Path) -> bool:
    """Whether a folder holds a checkpoint that train.py wrote."""
    for folder in checkpoints(run):
        try:
            if read_json(folder / "config.json", dict[str, Any]).get("format") == FORMAT:
                return True
        except InputError:
            continue
    return False


def has_sweep(folder: Path) -> bool:
    """Whether a folder holds scores of a sweep, or pictures that one has drawn."""
    try:
        return "rows" in read_json(folder / "sweep.json", dict[str, Any])
    except InputError:
        return any(folder.glob("step-*_g*_s*_*/about/samples.json"))


SAMPLES = Kind(
    "samples",
    r"about/(samples\.json|grid\.png|strip\.png|strip\.gif|\.lock)",
    folders=("about",),
    lock="about/.lock",
    marked=False,
    doing="drawing",
)
SWEEP = Kind(
    "sweep",
    r"sweep\.(json|html)|(prompts|attributes)\.json|held_out/[0-9]{5}\.png"
    rf"|step-[^/]+/({SAMPLES.files})",
    folders=("held_out",),
    known=has_sweep,
    doing="drawing",
)
RUN = Kind(
    "run",
    r"checkpoints/step-[0-9]+/((config|grids)\.json|(model|latents|training|averages)\.safetensors)"
    r"|previews/step-[0-9]+\.png|log\.csv|loss_by_noise\.csv|report\.html"
    r"|tensorboard/events\.out\.tfevents\.[^/]+"
    rf"|sweep/({SWEEP.files}|\.lock|\.tinyldm\.json)",
    folders=("checkpoints", "previews", "tensorboard"),
    known=has_checkpoint,
)


@dataclass(frozen=True)
class RunFolder:
    """What the options of train.py say about its run folder.

    out:    the folder; None: the next free number in runs/
    start:  the run, or a checkpoint of it, that --from names
    saved:  the config of the newest checkpoint of a run that is to be resumed, else None
    epochs: the length of the training in passes over the data, if it was given that way
    warmup: whether --warmup was given, which is then kept even if it is most of the run
    """

    out: Path | None
    resume: bool = False
    overwrite: bool = False
    epochs: int | None = None
    saved: Config | None = None
    start: str | None = None
    warmup: bool = False

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> tuple[RunFolder, dict[str, Any]]:
        """Read --out, --resume, --overwrite, --epochs and --from; returns the other options too.

        InputError: they contradict each other, or what is in the folder.
        """
        given = dict(options)
        out = given.pop("out", None)
        epochs = given.pop("epochs", None)
        resume = given.pop("resume", False)
        overwrite = given.pop("overwrite", False)
        start = given.pop("start", None)
        if overwrite and (resume or out is None):
            raise InputError("--overwrite: expected --out with it and no --resume")
        if epochs is not None and "max_steps" in given:
            raise InputError(f"--epochs {epochs}: expected no --max-steps with it")
        if out is not None and not str(out).strip():
            raise InputError(f"--out {str(out)!r}: expected the name of a folder")
        folder = None if out is None else Path(out)
        if resume and folder is None:
            folder = latest_run()
        saved = check_run(folder, resume, overwrite)
        run = cls(
            folder,
            resume=resume,
            overwrite=overwrite,
            epochs=epochs,
            saved=saved,
            start=start,
            warmup="warmup" in given,
        )
        return run, given

    def settings_given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options given; for a run to resume, all its settings with the allowed changes."""
        if self.saved is None:
            return dict(given)
        return settings_of(self.saved).resumed(given).to_dict()

    def of_length(
        self, settings: TrainSettings, images: int, processes: Processes
    ) -> TrainSettings:
        """The settings with --epochs turned into steps, of which warm-up is at most a tenth.

        A line says so if the learning rate stays far below --lr.
        InputError: the run has more steps already, the perceptual term would never count, or a
        batch cannot be split evenly: all told before the cache is built.
        """
        if self.epochs is not None:
            steps = ceil(self.epochs * images / settings.batch_size)
            settings = replace(settings, max_steps=steps)
        if self.saved is None and not self.warmup:
            settings = replace(settings, warmup=min(settings.warmup, settings.max_steps // 10))
        rate = highest_rate(settings)
        if rate < settings.lr / 10 and processes.is_main:
            say(
                f"the learning rate gets no higher than {rate:.1e}, less than a tenth of --lr "
                f"{settings.lr:g}: --warmup {settings.warmup} in {settings.max_steps} steps"
            )
        with naming_file(self.saved or {}):
            settings.micro_batch(processes.world)
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
        the others get a path that they only read from. A training that fails before its first step,
        or whose data turns out to be damaged, leaves nothing that stands in the way of the next.
        """
        if not processes.is_main:
            yield self.out or Path()
            return
        folder = free_folder(Path("runs"), name) if self.out is None else self.out
        if self.out is not None:  # again, for building the cache may have taken hours
            check_run(folder, self.resume, self.overwrite)
        try:
            with owned(folder, RUN):
                try:
                    if not self.resume:  # another process may have been quicker
                        check_run(folder, resume=False, overwrite=self.overwrite)
                    yield folder
                except BaseException as error:
                    # damaged data: nothing was saved, and all that lies there is of this training
                    is_void = isinstance(error, Damaged) and not self.overwrite
                    if not self.resume and (is_void or is_blank(folder)):
                        remove_written(folder, RUN)
                    raise
        except BaseException:
            if self.out is None:
                with suppress(OSError):  # it holds something
                    folder.rmdir()
            raise

    def clear_earlier(self, folder: Path, processes: Processes, check: Callable[[], None]) -> None:
        """Remove the run that --overwrite replaces: what train.py and sweep wrote, nothing else.

        Called when nothing but the training itself can fail any more. check() waits until the data
        is known to be whole; Damaged, and the run stays, if it is not.
        """
        if not self.overwrite or not processes.is_main:
            return
        check()
        sweep = folder / "sweep"
        in_use: AbstractContextManager[object] = nullcontext()
        if (sweep / LOCK).is_file():
            in_use = locked(sweep / LOCK, busy=f"{sweep}: another process is drawing there")
        with in_use:
            remove_written(folder, RUN)


def check_run(run: Path | None, resume: bool, overwrite: bool) -> Config | None:
    """The config of a run to resume, or None for a new one.

    InputError: there is nothing to resume, or something that must not be overwritten.
    """
    if resume:
        assert run is not None
        newest = find_checkpoint(run)
        if newest == run or not (newest / STATE).is_file():
            raise InputError(
                f"{newest}: can't be resumed; expected a run whose newest checkpoint has {STATE}"
            )
        saved = read_config(newest)
        with offering_the_one_before(newest):
            sketch_network(newest, saved)
        return saved
    if run is None or not run.exists() or is_blank(run):
        return None
    if not overwrite:
        raise InputError(
            f"--out {run}: exists already; expected a new folder, --resume or --overwrite"
        )
    if not RUN.holds(run):
        raise InputError(
            f"--out {run}: is no run folder, so --overwrite leaves it alone; expected another --out"
        )
    return None


def is_blank(run: Path) -> bool:
    """Whether a folder is empty, or holds a training that has not made its first step."""
    if is_empty(run):
        return True
    if not RUN.holds(run) or foreign(run, RUN) is not None or read_log(run / "log.csv"):
        return False
    left = {file.relative_to(run).parts[0] for file in written(run, RUN)}
    return left <= {"log.csv", "tensorboard"}


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
