"""python -m tinyldm convert: runs become folders for diffusers, and such folders runs.

A run of train.py --lora becomes a file of factors, as diffusers and peft read it.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.cli import parse_size
from tinyldm.errors import InputError, say
from tinyldm.folders import Kind, is_empty, whole_folder

if TYPE_CHECKING:
    from tinyldm.compat.trained import Elsewhere
    from tinyldm.diffusion.schedule import NoiseSchedule

DIFFUSERS = Kind("diffusers", r"(unet|scheduler|tinyldm)/[^/]+")
LORA_FILE = "pytorch_lora_weights.safetensors"
LORA = Kind("lora", re.escape(LORA_FILE))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; some are for a network trained elsewhere, whose folder leaves them open."""
    parser.add_argument(
        "source",
        type=Path,
        help="a run, a checkpoint, a folder that holds unet/ and scheduler/, or such a unet/ alone",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder to write, which must not exist yet"
    )
    group = parser.add_argument_group("for a network that was trained elsewhere")
    group.add_argument("--vae", help="the autoencoder it was trained with: a folder or a hub name")
    group.add_argument(
        "--text-encoder", help="the text encoder it was trained with: a folder or a hub name"
    )
    group.add_argument(
        "--scheduler", help="the scheduler it was trained with: a folder or a hub name"
    )
    group.add_argument("--size", type=parse_size, help="size in pixels: 64, or WIDTHxHEIGHT")


def run(options: argparse.Namespace) -> None:
    """Convert in the direction that the source asks for."""
    source, out = options.source, options.out
    if out.exists() and not is_empty(out):
        raise InputError(f"--out {out}: exists already; expected a new folder")
    kind, write = direction(options)
    with whole_folder(out, kind) as draft:
        try:
            write(source, draft)
        except (ValueError, TypeError) as error:
            raise InputError(f"{source}: cannot be converted: {error}") from None
    say(f"{source} is now {out}")


def direction(options: argparse.Namespace) -> tuple[Kind, Callable[[Path, Path], None]]:
    """What the source becomes, and the function that writes it to an empty folder.

    InputError: options are given that only a folder of diffusers' leaves open.
    """
    from tinyldm.compat.trained import Elsewhere, unet_folder
    from tinyldm.training.run import RUN

    source = options.source
    elsewhere = Elsewhere(options.vae, options.text_encoder, options.scheduler, size=options.size)
    if unet_folder(source) is not None:
        return RUN, partial(to_run, elsewhere=elsewhere)
    if elsewhere != Elsewhere():
        raise InputError(
            f"{source}: no unet/ in it; --vae, --text-encoder, --scheduler and --size "
            "are for diffusers' folders"
        )
    return (LORA, to_lora_file) if adapts(source) else (DIFFUSERS, to_diffusers)


def adapts(source: Path) -> bool:
    """Whether a run holds what adapts another run."""
    from tinyldm.training.checkpoint import find_checkpoint, read_config

    return "base" in read_config(find_checkpoint(source))


def to_lora_file(source: Path, out: Path) -> None:
    """Write the factors of a run under their published names, which are those of UNet's layers."""
    from tinyldm.methods.lora import published
    from tinyldm.training.adapters import Recipe
    from tinyldm.training.checkpoint import WEIGHTS, find_checkpoint, read_config
    from tinyldm.training.network import is_ours
    from tinyldm.weights import read_weights, write_weights

    folder = find_checkpoint(source)
    config = read_config(folder)
    recipe = Recipe.read(config["network"], config.file)
    spec = recipe.lora
    if spec is None or not is_ours(recipe.base):
        raise InputError(f"{source}: expected a LoRA of a UNet, which diffusers can load")
    write_weights(out / LORA_FILE, published(read_weights(folder / WEIGHTS), spec.rank, spec.alpha))


def to_diffusers(source: Path, out: Path) -> None:
    """Write a run's averaged weights and schedule as diffusers' folders.

    What else sampling needs lies beside them, in a folder of its own.
    """
    from tinyldm.compat.native import from_native
    from tinyldm.compat.schedule import PREDICTIONS
    from tinyldm.compat.schedulers.scheduling_dpmsolver_multistep import (
        DPMSolverMultistepScheduler,
    )
    from tinyldm.compat.trained import OWN
    from tinyldm.nn.unet import UNet
    from tinyldm.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(source)
    network = checkpoint.network
    if not isinstance(network, UNet):
        raise InputError(f"{source}: its network is not a UNet, so diffusers cannot load it")
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if checkpoint.schedule.kind == "flow" or checkpoint.prediction not in predictions:
        raise InputError(
            f"{source}: of schedule {checkpoint.schedule.kind} and prediction "
            f"{checkpoint.prediction}, which no scheduler written here knows; expected a schedule "
            f"with betas, and {', '.join(predictions)}"
        )
    _, height, width = checkpoint.config["latent_shape"]
    unet = from_native(network.config, height if height == width else (height, width))
    unet.load_state_dict(network.state_dict(), assign=True)
    scheduler = DPMSolverMultistepScheduler(
        **betas_of(checkpoint.schedule),
        rescale_betas_zero_snr=checkpoint.schedule.zero_snr,
        timestep_spacing="trailing",
        prediction_type=predictions[checkpoint.prediction],
    )
    unet.save_pretrained(out / "unet")
    scheduler.save_pretrained(out / "scheduler")
    (out / OWN).mkdir()
    for name in ("config.json", "latents.safetensors"):
        shutil.copyfile(checkpoint.path / name, out / OWN / name)


def betas_of(schedule: NoiseSchedule) -> dict[str, Any]:
    """A schedule in the settings of diffusers' schedulers.

    They have no shift, so a shifted schedule becomes a table of betas.
    """
    import torch

    from tinyldm.compat.schedule import KINDS

    settings: dict[str, Any] = {"num_train_timesteps": schedule.timesteps}
    if schedule.shift != 1:
        before = torch.cat([torch.ones(1), schedule.alpha_bar[:-1]])
        betas = (1 - schedule.alpha_bar / before).clamp(max=1 - 1e-12)
        return {**settings, "trained_betas": betas.tolist()}
    kinds = {ours: theirs for theirs, ours in KINDS.items()}
    settings["beta_schedule"] = kinds[schedule.kind]
    if schedule.beta_start is not None:
        settings["beta_start"] = schedule.beta_start
        settings["beta_end"] = schedule.beta_end
    return settings


def to_run(source: Path, out: Path, elsewhere: Elsewhere) -> None:
    """Write diffusers' network and schedule as a run of one checkpoint, to sample from."""
    from tinyldm.compat.trained import read_trained
    from tinyldm.training.checkpoint import save_checkpoint

    trained = read_trained(source, elsewhere, tables=False)
    step = out / "checkpoints" / f"step-{trained.config['step']:07d}"
    weights = {"model": trained.network.state_dict(), "latents": trained.latents}
    save_checkpoint(step, trained.config, weights)
