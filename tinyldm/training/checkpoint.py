"""Checkpoints: folders of JSON and safetensors with all that sampling and resuming need.

runs/NAME/checkpoints/step-0001000/
    config.json           network, schedule, prediction, frozen models, image size, step, settings,
                          progress
    model.safetensors     the averaged weights, float32
    latents.safetensors   mean and std of the latents, the null condition
    training.safetensors  raw weights and optimiser moments; kept for the newest checkpoint only
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.condition import Condition
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.files import naming, read_json
from tinyldm.tasks.base import Task, find_task
from tinyldm.training.format_1 import UNSAID
from tinyldm.training.network import build_network
from tinyldm.weights import load_into, read_weights, write_weights

FORMAT = 1
KINDS: dict[str, type] = {
    "network": dict,
    "schedule": dict,
    "settings": dict,
    "size": list,
    "preview_prompts": list,
    "prediction": str,
    "vae": str,
    "step": int,
}
"""What config.json holds under some of its keys."""


@dataclass(frozen=True)
class Checkpoint:
    """What sampling needs of a checkpoint.

    mean, std: latents of the VAE are x0 * std + mean; (c, 1, 1), though mean may be (c, h, w)
    null:      the null condition, one row
    config:    the content of config.json
    """

    network: nn.Module
    schedule: NoiseSchedule
    prediction: str
    mean: Tensor
    std: Tensor
    null: Condition
    config: dict[str, Any]
    path: Path


def save_checkpoint(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a checkpoint, whole or not at all; weights: "model", "latents", ... -> tensors."""
    temporary = folder.with_name(f".{folder.name}.writing")
    for unfinished in folder.parent.glob(".*.writing"):  # left by a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with naming(folder):
            temporary.mkdir(parents=True)
            for name, tensors in weights.items():
                write_weights(temporary / f"{name}.safetensors", tensors)
            content = json.dumps({"format": FORMAT, **config}, indent=2)
            (temporary / "config.json").write_text(content, encoding="utf-8")
            for file in temporary.iterdir():
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
            if folder.exists():  # saved twice at the same step: the same content
                shutil.rmtree(folder)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path.parent for path in (run / "checkpoints").glob("step-*/config.json"))


def drop_training_state(run: Path) -> None:
    """Keep what resuming needs for the newest checkpoint only; the others can still be sampled."""
    for folder in checkpoints(run)[:-1]:
        (folder / "training.safetensors").unlink(missing_ok=True)


def latest_run() -> Path:
    """The run in runs/ whose newest checkpoint is the newest of all."""
    newest = [checkpoints(run)[-1] for run in Path("runs").glob("*") if checkpoints(run)]
    if not newest:
        raise InputError(
            "runs: no run with a checkpoint; train one first (python train.py --cfg-drop 0.1)"
        )
    return max(newest, key=lambda path: (path / "config.json").stat().st_mtime).parent.parent


def find_checkpoint(path: str | Path) -> Path:
    """The newest checkpoint of a run folder, or the checkpoint folder itself."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a run or a checkpoint")
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        return path
    if not checkpoints(path):
        raise InputError(
            f"{path}: holds no checkpoint; expected {path}/checkpoints/step-*/config.json"
        )
    return checkpoints(path)[-1]


class Config(dict[str, Any]):
    """The content of a config.json. Looking up a key that is missing is an InputError."""

    def __init__(self, content: Mapping[str, Any], file: Path):
        super().__init__(content)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self.file}: says nothing of {key!r}; expected a checkpoint that train.py wrote"
        )


def read_config(folder: str | Path) -> Config:
    """config.json of a checkpoint."""
    file = Path(folder) / "config.json"
    content = read_json(file, dict)
    if content.get("format") != FORMAT:
        raise InputError(f"{file}: not a tinyldm checkpoint of format {FORMAT}")
    for key, kind in KINDS.items():
        if not isinstance(content.get(key, kind()), kind):
            got = type(content[key]).__name__
            expected = kind.__name__
            raise InputError(f"{file}: not understood: {key!r} is {got}, expected {expected}")
    if len(content.get("size", (0, 0))) != 2:
        size = content["size"]
        raise InputError(f"{file}: not understood: 'size' is {size}, expected [height, width]")
    if "settings" in content:
        content["settings"] = {**UNSAID, **content["settings"]}
    return Config(content, file)


def conditioning_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its task and encoder; the oldest ones only knew captions."""
    known = config.get("condition") or {"task": "text", "name": config["text_encoder"]}
    return dict(known)


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that a checkpoint was trained for."""
    try:
        return find_task(conditioning_of(config)["task"])
    except InputError as error:
        where = f"{config.file}: " if isinstance(config, Config) else ""
        raise InputError(f"{where}{error}") from None


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, or the newest of a run, for sampling: averaged weights, in eval mode."""
    folder = find_checkpoint(path)
    config = read_config(folder)
    try:
        network = build_network(config["network"])
        schedule = NoiseSchedule.from_dict(config["schedule"])
        prediction = config["prediction"]
    except InputError as error:  # a network of the user's own that is not where it was
        raise InputError(f"{config.file}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{config.file}: not understood: {error}") from None
    file = folder / "model.safetensors"
    load_into(network, read_weights(file), file)
    latents = read_weights(folder / "latents.safetensors")
    null = {}
    for name, part in latents.items():
        if name.startswith("null."):
            null[name.removeprefix("null.")] = part
    return Checkpoint(
        network=network.to(device).eval().requires_grad_(False),
        schedule=schedule,
        prediction=prediction,
        mean=latents["mean"],
        std=latents["std"],
        null=Condition(**null),
        config=config,
        path=folder,
    )
