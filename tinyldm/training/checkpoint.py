"""Checkpoints: a folder of JSON and safetensors that holds everything that sampling and resuming need.

runs/NAME/checkpoints/step-0001000/
    config.json           network, schedule, prediction, frozen models, image size, step, settings, progress
    model.safetensors     the averaged weights, float32
    latents.safetensors   mean and std of the latents, the null condition
    training.safetensors  raw weights and optimiser moments; kept for the newest checkpoint alone
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.files import naming, read_json
from tinyldm.nn.unet import UNet, UNetConfig

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What sampling needs. Latents of the VAE are x0 * std + mean; null is one row; mean and std are (c, 1, 1)."""

    network: UNet
    schedule: NoiseSchedule
    prediction: str
    mean: Tensor
    std: Tensor
    null: Condition
    config: dict
    path: Path


def save_checkpoint(folder: Path, config: dict, weights: dict[str, dict[str, Tensor]]) -> None:
    """Write a checkpoint that is either whole or absent; weights maps "model", "latents", "training" to tensors."""
    temporary = folder.with_name(f".{folder.name}.writing")
    for unfinished in folder.parent.glob(".*.writing"):  # of a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with naming(folder):
            temporary.mkdir(parents=True)
            for name, tensors in weights.items():
                save_file(
                    {k: t.detach().cpu().contiguous() for k, t in tensors.items()},
                    temporary / f"{name}.safetensors",
                )
            (temporary / "config.json").write_text(
                json.dumps({"format": FORMAT, **config}, indent=2), encoding="utf-8"
            )
            for file in temporary.iterdir():
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
            if folder.exists():  # saved twice at the same step: the same content
                shutil.rmtree(folder)
            temporary.rename(folder)
    except SafetensorError as error:  # a full disk, said in safetensors' words
        raise OSError(f"{folder}: can't be written ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(p.parent for p in (run / "checkpoints").glob("step-*/config.json"))


def drop_training_state(run: Path) -> None:
    """Keep what resuming needs for the newest checkpoint alone; the others still sample."""
    for folder in checkpoints(run)[:-1]:
        (folder / "training.safetensors").unlink(missing_ok=True)


def latest_run(root: str | Path = "runs") -> Path:
    """The run whose newest checkpoint is the newest."""
    found = [checkpoints(run)[-1] for run in Path(root).glob("*") if checkpoints(run)]
    if not found:
        raise InputError(
            f"{root}: no run with a checkpoint; train one first (python train.py --cfg-drop 0.1)"
        )
    return max(found, key=lambda p: (p / "config.json").stat().st_mtime).parent.parent


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


def read_config(folder: Path) -> dict:
    """config.json of a checkpoint; a key that is asked for and missing is an InputError."""
    file = Path(folder) / "config.json"
    config = read_json(file, dict)
    if config.get("format") != FORMAT:
        raise InputError(f"{file}: not a tinyldm checkpoint of format {FORMAT}")

    class Config(dict):
        def __missing__(self, key: str):
            raise InputError(
                f"{file}: says nothing of {key!r}; expected a checkpoint that train.py wrote"
            )

    return Config(config)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; the checkpoint is not whole") from None
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from None


def load_weights(network: torch.nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Load strictly: each weight by its name, in its shape."""
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in tensors.items()}
    wrong = sorted(n for n in expected.keys() | got.keys() if expected.get(n) != got.get(n))
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{file}: a checkpoint of another architecture: {len(wrong)} weights differ, first {name}: "
            f"expected {expected.get(name, 'none')}, got {got.get(name, 'none')}"
        )
    network.load_state_dict(tensors)


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint (or the newest of a run) for sampling: averaged weights, eval mode."""
    folder = find_checkpoint(path)
    config = read_config(folder)
    try:
        network = UNet(UNetConfig.from_dict(config["network"]))
        schedule = NoiseSchedule.from_dict(config["schedule"])
        prediction = config["prediction"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'}: not understood: {error}") from None
    load_weights(network, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    latents = read_tensors(folder / "latents.safetensors")
    null = Condition(
        **{name.removeprefix("null."): t for name, t in latents.items() if name.startswith("null.")}
    )
    network = network.to(device).eval().requires_grad_(False)
    return Checkpoint(
        network, schedule, prediction, latents["mean"], latents["std"], null, config, folder
    )
