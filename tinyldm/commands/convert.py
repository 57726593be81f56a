"""python -m tinyldm convert: runs become folders for diffusers, and such folders runs.

A run of train.py --lora becomes a file of factors, as diffusers and peft read it.
"""

from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.cli import parse_size
from tinyldm.errors import InputError, say
from tinyldm.folders import Kind, is_empty, whole_folder
from tinyldm.typed import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from tinyldm.diffusion.schedule import NoiseSchedule

DIFFUSERS = Kind("diffusers", r"(unet|scheduler|tinyldm)/[^/]+")
LORA_FILE = "pytorch_lora_weights.safetensors"
LORA = Kind("lora", re.escape(LORA_FILE))
OWN = "tinyldm"  # the folder, beside unet/ and scheduler/, of what diffusers has no place for


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
    from tinyldm.training.run import RUN

    kind = RUN
    if unet_folder(source) is None:
        kind = LORA if adapts(source) else DIFFUSERS
    with whole_folder(out, kind) as draft:
        convert(options, draft)
    say(f"{source} is now {out}")


def convert(options: argparse.Namespace, out: Path) -> None:
    """Write what the source becomes to an empty folder."""
    source = options.source
    try:
        unet = unet_folder(source)
        elsewhere = Elsewhere(
            options.vae, options.text_encoder, options.scheduler, size=options.size
        )
        if unet is not None:
            to_run(source, unet, out, elsewhere)
        elif elsewhere != Elsewhere():
            raise InputError(
                f"{source}: no unet/ in it; --vae, --text-encoder, --scheduler and --size "
                "are for diffusers' folders"
            )
        elif adapts(source):
            to_lora_file(source, out)
        else:
            to_diffusers(source, out)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source}: cannot be converted: {error}") from None


@dataclass(frozen=True)
class Elsewhere:
    """What a folder of diffusers does not say about the training of its network."""

    vae: str | None = None
    text_encoder: str | None = None
    scheduler: str | None = None
    size: tuple[int, int] | None = None


def unet_folder(source: Path) -> Path | None:
    """The folder with the network, where diffusers wrote one: unet/, or source itself."""
    if (source / "unet" / "config.json").is_file():
        return source / "unet"
    config = source / "config.json"
    if config.is_file() and "_class_name" in read_json(config, dict[str, Any]):
        return source  # a checkpoint has a config.json too, which names no class
    return None


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


def to_run(source: Path, folder: Path, out: Path, elsewhere: Elsewhere) -> None:
    """Write diffusers' network and schedule as a run of one checkpoint, to sample from.

    folder: of the network, in source
    """
    import torch

    from tinyldm.compat.config import WEIGHTS
    from tinyldm.compat.schedule import TableSchedule
    from tinyldm.diffusion.schedule import NoiseSchedule
    from tinyldm.training.checkpoint import read_config, save_checkpoint
    from tinyldm.training.network import build_network
    from tinyldm.typed import as_type
    from tinyldm.weights import load_into, read_weights, sized_by

    unet = read_unet(folder)
    scheduler = read_scheduler(source, elsewhere)
    schedule = scheduler.schedule
    own = source / OWN
    if own.is_dir():
        if elsewhere != Elsewhere():
            raise InputError(
                f"{source}: was a run, which says --vae, --text-encoder, --scheduler and --size"
            )
        config: dict[str, Any] = dict(read_config(own))
        latents = read_weights(own / "latents.safetensors")
        where = f"{own / 'config.json'}: schedule"
        of_the_run = as_type(config["schedule"], where, NoiseSchedule)
        as_long = of_the_run.timesteps == schedule.timesteps
        if as_long and torch.allclose(of_the_run.alpha_bar, schedule.alpha_bar, atol=1e-9):
            schedule = of_the_run
    if isinstance(schedule, TableSchedule):
        raise InputError(f"{source / 'scheduler'}: trained_betas are not supported in a run")
    schedule = as_type(asdict(schedule), f"{source / 'scheduler'}", NoiseSchedule)
    if not own.is_dir():
        config, latents = trained_elsewhere(unet, elsewhere)
    config |= {"schedule": asdict(schedule), "prediction": scheduler.prediction}
    weights = folder / WEIGHTS
    try:
        with sized_by(weights, config["network"]):  # on the meta device
            network = build_network(config["network"])
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    load_into(network, unet.state_dict(), weights)
    step = out / "checkpoints" / f"step-{config['step']:07d}"
    save_checkpoint(step, config, {"model": network.state_dict(), "latents": latents})


def read_unet(folder: Path) -> Any:
    """The network in diffusers' folder unet/, of one of the two classes known."""
    from tinyldm.compat.unet import UNet2DConditionModel, UNet2DModel

    known = {kind.__name__: kind for kind in (UNet2DConditionModel, UNet2DModel)}
    name = UNet2DModel.load_config(folder).get("_class_name")
    if name not in known:
        expected = " or ".join(known)
        raise InputError(f"{folder / 'config.json'}: of class {name}, expected {expected}")
    return known[name].from_pretrained(folder)


def read_scheduler(source: Path, elsewhere: Elsewhere) -> Any:
    """The scheduler of a network: --scheduler, or else in scheduler/, or beside the weights.

    None is ever assumed: with another schedule a network draws noise.
    """
    from tinyldm.compat.schedulers.scheduling_ddpm import DDPMScheduler

    if elsewhere.scheduler is not None and not Path(elsewhere.scheduler).is_dir():
        return DDPMScheduler.from_pretrained(elsewhere.scheduler, subfolder="scheduler")
    folder = source if elsewhere.scheduler is None else Path(elsewhere.scheduler)
    for place in (folder / "scheduler", folder):
        if (place / DDPMScheduler.FILE).is_file():
            return DDPMScheduler.from_pretrained(place)
    raise InputError(
        f"--scheduler: expected a folder or a hub name, as {folder} holds no {DDPMScheduler.FILE}"
    )


def trained_elsewhere(unet: Any, elsewhere: Elsewhere) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config of a checkpoint, and the statistics of its latents with the null condition."""
    import torch

    from tinyldm.autoencoder.kl import AutoencoderKL
    from tinyldm.compat.native import network_recipe
    from tinyldm.frozen.text import TextEncoder

    vae, text_encoder, size = elsewhere.vae, elsewhere.text_encoder, elsewhere.size
    for option, value in {"--vae": vae, "--text-encoder": text_encoder, "--size": size}.items():
        if value is None:
            raise InputError(f"{option}: expected for a network that was not trained by tinyldm")
    assert vae is not None
    assert text_encoder is not None
    assert size is not None
    autoencoder, encoder = AutoencoderKL.load(vae), TextEncoder.load(text_encoder)
    c, factor = autoencoder.latent_channels, autoencoder.factor
    config = {
        "step": 0,
        "network": network_recipe(unet),
        "vae": vae,
        "vae_fingerprint": autoencoder.fingerprint,
        "text_encoder": text_encoder,
        "text_encoder_fingerprint": encoder.fingerprint,
        "size": list(size),
        "latent_shape": [c, *(side // factor for side in size)],
        "preview_prompts": [],
        "settings": {"cfg_drop": 0.1},
    }
    std = torch.full((c, 1, 1), 1 / autoencoder.config.scaling_factor)
    latents = {"mean": torch.zeros(c, 1, 1), "std": std}  # x0 is the latent times scaling_factor
    for name, part in encoder.encode([""]).parts().items():  # the null condition: the empty text
        latents[f"null.{name}"] = part
    return config, latents
