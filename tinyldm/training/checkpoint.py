"""Checkpoints: folders of JSON and safetensors with all that sampling and resuming need.

runs/NAME/checkpoints/step-0001000/
    config.json           network, schedule, prediction, frozen models, image size, step, settings,
                          progress, checksums of the other files and of itself
    model.safetensors     the averaged weights, float32
    latents.safetensors   mean and std of the latents, the null condition
    averages.safetensors  with --post-hoc-ema: two more averages of other lengths, float32
    training.safetensors  raw weights and optimiser moments; kept for the newest two checkpoints
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from tinyldm.condition import Condition
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.files import file_checksum, replacing_files
from tinyldm.folders import numbered
from tinyldm.installation import called
from tinyldm.methods.power_ema import LONGEST, Synthesis
from tinyldm.nn.unet import UNet
from tinyldm.tasks.base import Task, find_task
from tinyldm.training.adapters import WEIGHTS, BaseOf, is_adapter, load_adapter
from tinyldm.training.format_1 import UNSAID, read_progress
from tinyldm.training.learning_rate import Plateau
from tinyldm.training.network import build_network, check_inputs, is_ours
from tinyldm.training.settings import TrainSettings
from tinyldm.training.statistics import LATENTS, read_latents
from tinyldm.typed import SEAL, Index, Limits, Side, as_type, read_json, sealed, unsealed
from tinyldm.weights import (
    check_shapes,
    load_into,
    read_shapes,
    read_weights,
    shapes,
    sized_by,
    write_weights,
)

STATE, AVERAGES = "training.safetensors", "averages.safetensors"
FORMAT = 1

Length = Annotated[float, Limits(ge=0.001, le=LONGEST)]  # sigma_rel of an average


@dataclass
class Progress:
    """How far a run is. skipped: all batches left out because of an infinite gradient."""

    step: Index = 0
    skipped: Index = 0
    plateau: Plateau = field(default_factory=Plateau)

    def leave_out(self) -> None:
        """Count a batch whose gradient was infinite."""
        self.skipped += 1

    def advance(self, loss: float, window: int) -> None:
        """Count a step with its loss. window: see Plateau.observe"""
        self.step += 1
        self.plateau.observe(loss, window)


@dataclass(frozen=True)
class TaskName:
    """What every checkpoint says of its task; the task reads the rest, see Task.facts."""

    task: str


@dataclass(frozen=True)
class Content:
    """The type of what a command reads of a config.json, which may hold more.

    A key may be missing as long as nobody looks it up: a trainer in somebody's own script does not
    know all of them, and the oldest checkpoints only knew captions. The network is checked by
    whoever builds it.
    """

    step: Index = 0
    network: dict[str, Any] = field(default_factory=dict)
    base: BaseOf | None = None
    schedule: dict[str, Any] = field(default_factory=dict)
    prediction: Literal["eps", "x0", "v", "flow"] = "v"
    settings: TrainSettings = field(default_factory=TrainSettings)
    progress: Progress = field(default_factory=Progress)
    ema_updates: Index = 0
    ema_lengths: list[Length] | None = None
    vae: str = ""
    vae_fingerprint: str | None = None
    text_encoder: str = ""
    text_encoder_fingerprint: str | None = None
    condition: TaskName | None = None
    size: tuple[Side, Side] = (1, 1)
    latent_shape: tuple[Side, Side, Side] = (1, 1, 1)
    preview_prompts: list[str] = field(default_factory=list)
    data: str = ""
    data_folder: str = ""
    machine: str = ""
    checksums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What sampling needs of a checkpoint.

    mean, std: latents of the VAE are x0 * std + mean; (c, 1, 1), though mean may be (c, h, w)
    null:      the null condition, one row
    config:    the content of config.json
    scale:     how much of what adapts another run counts
    synthesis: what the weights were put together from, where they are not those that were saved
    """

    network: nn.Module
    schedule: NoiseSchedule
    prediction: str
    mean: Tensor
    std: Tensor
    null: Condition
    config: Config
    path: Path
    scale: float = 1.0
    synthesis: Synthesis | None = None


def save_checkpoint(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a checkpoint, whole or not at all; weights: "model", "latents", ... -> tensors."""
    if folder.is_symlink():
        raise InputError(f"{folder}: is a symbolic link; expected a folder, or none yet")
    for unfinished in folder.parent.glob(".step-*.writing"):  # of versions that named them so
        shutil.rmtree(unfinished, ignore_errors=True)
    with replacing_files(folder) as draft:
        for name, tensors in weights.items():
            write_weights(draft / f"{name}.safetensors", tensors)
        sums = {file.name: file_checksum(file) for file in sorted(draft.iterdir())}
        facts = sealed({"format": FORMAT, **config, "checksums": sums})
        content = json.dumps(facts, indent=2)
        (draft / "config.json").write_text(content, encoding="utf-8")


def check_whole(folder: Path, config: Config, *names: str) -> None:
    """InputError if files of a checkpoint are not those that were written with its config.json.

    The first checkpoints have no checksums, and there only what is read can be checked.
    """
    for name in names:
        file, recorded = folder / name, config.get("checksums", {}).get(name)
        if recorded is not None and file.is_file() and recorded != file_checksum(file):
            raise InputError(f"{file}: damaged: not what was written with its config.json")


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, step-NUMBER, in the order of their numbers."""
    found = numbered(run / "checkpoints")
    return [folder for folder in found if (folder / "config.json").is_file()]


def drop_training_state(run: Path, newest: Path) -> None:
    """Drop what resuming needs of the checkpoints that `newest`, just written, has superseded.

    The last two keep theirs, and so do checkpoints of later steps; all can still be sampled.
    """
    known = checkpoints(run)
    for folder in known[: max(0, known.index(newest) - 1)]:
        if not folder.is_symlink():
            (folder / STATE).unlink(missing_ok=True)


def latest_run() -> Path:
    """The run in runs/ whose newest checkpoint is the newest of all; InputError: there is none."""
    newest: list[Path] = []
    for run in Path("runs").glob("*"):
        newest += checkpoints(run)[-1:]
    if not newest:
        raise InputError(
            "runs: no run with a checkpoint; train one first "
            f"({called('python train.py')} --cfg-drop 0.1)"
        )
    return max(newest, key=lambda path: (path / "config.json").stat().st_mtime).parent.parent


def find_checkpoint(path: str | Path) -> Path:
    """The newest checkpoint of a run folder, or a checkpoint folder itself; InputError: neither."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a run or a checkpoint")
    if (path / "config.json").is_file() and (path / WEIGHTS).is_file():
        return path
    known = checkpoints(path)
    if not known:
        raise InputError(
            f"{path}: holds no checkpoint; expected {path}/checkpoints/step-*/config.json"
        )
    return known[-1]


class Config(dict[str, Any]):
    """The content of a config.json. Looking up a key that is missing is an InputError."""

    def __init__(self, content: Mapping[str, Any], file: Path):
        super().__init__(content)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self.file}: says nothing of {key!r}; "
            f"expected a checkpoint that {called('train.py')} wrote"
        )


def read_config(folder: str | Path) -> Config:
    """config.json of a checkpoint, as plain values."""
    file = Path(folder) / "config.json"
    with offering_the_one_before(folder):
        content = read_json(file, dict[str, Any])
        if content.get("format") != FORMAT:
            raise InputError(f"{file}: not a tinyldm checkpoint of format {FORMAT}")
        if "progress" in content:
            content["progress"] = read_progress(content["progress"])
        known: Content = as_type(content, str(file), Content, extra="ignore")
        if known.settings.consistency is not None and SEAL not in content:
            # every version that knew of consistency wrote a checksum
            raise InputError(f"{file}: settings.consistency: expected null without a {SEAL!r}")
        content = unsealed(content, str(file))
        check_step(content, file)
        if "settings" in content:
            content["settings"] = {**UNSAID, **content["settings"]}
    return Config(content, file)


def check_step(content: Mapping[str, Any], file: Path) -> None:
    """InputError, naming the file, where it says twice how far the run is, and not the same."""
    if "step" in content and "progress" in content:
        step, progress = content["step"], content["progress"].get("step", 0)
        if step != progress:
            raise InputError(f"{file}: step is {step} and progress.step is {progress}")


@contextmanager
def offering_the_one_before(folder: str | Path) -> Iterator[None]:
    """A block that reads a checkpoint: an InputError of it also names the checkpoint before."""
    try:
        yield
    except InputError as error:
        folder = Path(folder)
        known = checkpoints(folder.parent.parent)
        if folder not in known[1:]:
            raise
        before = known[known.index(folder) - 1]
        raise InputError(f"{error}; the checkpoint before it is {before}") from None


def conditioning_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its task and encoder; the oldest ones only knew captions."""
    known = config.get("condition") or {"task": "text", "name": config["text_encoder"]}
    return dict(known)


@contextmanager
def naming_file(config: Mapping[str, Any]) -> Iterator[None]:
    """Let an InputError of the block say which config.json asked for what it could not get."""
    try:
        yield
    except InputError as error:
        where = f"{config.file}: " if isinstance(config, Config) else ""
        raise InputError(f"{where}{error}") from None


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that a checkpoint was trained for."""
    with naming_file(config):
        return find_task(conditioning_of(config)["task"])


def settings_of(config: Config) -> TrainSettings:
    """The settings of a checkpoint's training; InputError for any that are unknown here."""
    with naming_file(config):
        settings = TrainSettings.from_dict(config["settings"])
        find_task(settings.task)
        return settings


def load_checkpoint(
    path: str | Path,
    device: torch.device | str = "cpu",
    *,
    base: str | Path | None = None,
    scale: float = 1.0,
) -> Checkpoint:
    """Read a checkpoint, or the newest of a run, for sampling: averaged weights, in eval mode.

    base:  where the run is that this one adapts, if it has moved
    scale: how much of the adapter counts; LoRA is merged into its base
    InputError, which names the file: it is damaged, or its parts do not fit together.
    """
    folder = find_checkpoint(path)
    config = read_config(folder)
    file = folder / WEIGHTS
    with offering_the_one_before(folder):
        schedule = as_type(config["schedule"], f"{config.file}: schedule", NoiseSchedule)
        mean, std, null = read_latents(folder, config)
        sketch = sketch_network(folder, config)
        if sketch is not None:
            check_inputs(sketch, mean, null, config.file)
        weights = read_weights(file)
        check_whole(folder, config, file.name, LATENTS)
    if "base" in config:
        adapted = load_base(folder, config, base).network
        with offering_the_one_before(folder):
            network = load_adapter(adapted, config["network"], folder, weights).ready(scale)
    elif base is not None or scale != 1:
        given = f"--base {base}" if scale == 1 else f"--lora-scale {scale:g}"
        raise InputError(f"{given}: {folder} is of a run that adapts no other")
    else:
        network = described(config)
        with offering_the_one_before(folder):
            load_into(network, weights, file)
    return Checkpoint(
        network=network.to(device).eval().requires_grad_(False),
        schedule=schedule,
        prediction=config["prediction"],
        mean=mean,
        std=std,
        null=null,
        config=config,
        path=folder,
        scale=scale,
    )


def load_base(folder: Path, config: Config, given: str | Path | None = None) -> Checkpoint:
    """The checkpoint that the one in a folder adapts. given: where it is, if it has moved."""
    recorded: BaseOf = as_type(config["base"], f"{config.file}: base", BaseOf)
    return ordinary(recorded.find(folder, None if given is None else Path(given)))


def ordinary(path: str | Path) -> Checkpoint:
    """load_checkpoint() of what is to be adapted; InputError where it adapts another itself."""
    folder = find_checkpoint(path)
    if "base" in read_config(folder):
        raise InputError(
            f"{folder}: adapts another run itself; "
            f"merge them first, with: {called('python -m tinyldm')} merge RUN --out NEW"
        )
    return load_checkpoint(folder)


def described(config: Config) -> nn.Module:
    """The network that a checkpoint describes, with random weights."""
    with naming_file(config):
        return build_network(config["network"])


def sketch_network(folder: Path, config: Config) -> UNet | None:
    """The UNet that a checkpoint describes, on the meta device; None for any other network.

    InputError, before memory is taken for it, where its description makes no sense, or the file of
    weights is that of another network.
    """
    file, recipe = folder / WEIGHTS, config["network"]
    if is_adapter(recipe):
        return None
    with sized_by(file, recipe):
        sketch = described(config) if is_ours(recipe) else None
    if not isinstance(sketch, UNet):
        return None
    check_shapes(read_shapes(file), shapes(sketch.state_dict()), file)
    return sketch
