"""A network in a folder of diffusers', with all that sampling needs beside it.

The folder is one that `convert` wrote, which says everything; or a published pipeline, which holds
vae/, text_encoder/ and tokenizer/; or a network alone, and whoever reads it says the rest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.compat.config import WEIGHTS
from tinyldm.compat.native import network_recipe
from tinyldm.compat.schedule import TableSchedule
from tinyldm.compat.schedulers.scheduling_ddpm import DDPMScheduler
from tinyldm.compat.unet import UNet2DConditionModel, UNet2DModel
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.frozen.text import TextEncoder
from tinyldm.training.checkpoint import read_config
from tinyldm.training.network import build_network
from tinyldm.training.statistics import read_latents, stored_latents
from tinyldm.typed import Side, as_type, read_json
from tinyldm.weights import load_into, sized_by

OWN = "tinyldm"  # the folder, beside unet/ and scheduler/, of what diffusers has no place for


@dataclass(frozen=True)
class Elsewhere:
    """What a folder of diffusers' may not say about the training of its network.

    padded: whether the network saw captions padded to their greatest length, with no mask
    """

    vae: str | None = None
    text_encoder: str | None = None
    scheduler: str | None = None
    size: tuple[int, int] | None = None
    padded: bool = False


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, its schedule, the config of a checkpoint of it, and what lies in its latents file.

    latents: mean and std of the latents, and the null condition as null.NAME
    """

    network: nn.Module
    schedule: NoiseSchedule
    config: dict[str, Any]
    latents: dict[str, Tensor]


def unet_folder(source: Path) -> Path | None:
    """The folder with the network, where diffusers wrote one: unet/, or source itself."""
    if (source / "unet" / "config.json").is_file():
        return source / "unet"
    config = source / "config.json"
    if config.is_file() and "_class_name" in read_json(config, dict[str, Any]):
        return source  # a checkpoint has a config.json too, which names no class
    return None


def read_trained(source: Path, elsewhere: Elsewhere, tables: bool = True) -> Trained:
    """The network in a folder of diffusers', and what a checkpoint of it would say.

    tables: whether a schedule that is a table of betas will do, which a checkpoint has no words for
    """
    folder = unet_folder(source)
    if folder is None:
        raise InputError(f"{source}: no unet/ in it")
    unet = read_unet(folder)
    scheduler = read_scheduler(source, elsewhere)
    schedule = scheduler.schedule
    own = source / OWN
    was_run = own.is_dir()
    if was_run:
        config, latents = read_own(own, elsewhere)
        schedule = recorded_schedule(config, own, schedule)
    if isinstance(schedule, TableSchedule) and not tables:
        raise InputError(f"{source / 'scheduler'}: trained_betas are not supported in a run")
    if not was_run:
        config, latents = trained_elsewhere(unet, elsewhere)
    if not isinstance(schedule, TableSchedule):
        schedule = as_type(asdict(schedule), f"{source / 'scheduler'}", NoiseSchedule)
        config["schedule"] = asdict(schedule)
    config["prediction"] = scheduler.prediction
    weights = folder / WEIGHTS
    try:
        with sized_by(weights, config["network"]):  # on the meta device
            network = build_network(config["network"])
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    load_into(network, unet.state_dict(), weights)
    return Trained(network, schedule, config, latents)


def read_own(own: Path, elsewhere: Elsewhere) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `convert` has kept of a run: its config, and what lies in its latents file.

    InputError: it is damaged, or somebody says `elsewhere` what it says itself.
    """
    if elsewhere != Elsewhere():
        raise InputError(
            f"{own.parent}: was a run, which says --vae, --text-encoder, --scheduler and --size"
        )
    config = read_config(own)
    return config, stored_latents(*read_latents(own, config))


def recorded_schedule(config: dict[str, Any], own: Path, found: NoiseSchedule) -> NoiseSchedule:
    """The schedule that a run says it has, where that is the one found beside its network.

    What was found is a table of betas where diffusers has no words for the schedule.
    """
    recorded = as_type(config["schedule"], f"{own / 'config.json'}: schedule", NoiseSchedule)
    as_long = recorded.timesteps == found.timesteps
    same = as_long and torch.allclose(recorded.alpha_bar, found.alpha_bar, atol=1e-9)
    return recorded if same else found


def read_unet(folder: Path) -> Any:
    """The network in diffusers' folder unet/, of one of the two classes known."""
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
    vae, text_encoder, size = elsewhere.vae, elsewhere.text_encoder, elsewhere.size
    for option, value in {"--vae": vae, "--text-encoder": text_encoder, "--size": size}.items():
        if value is None:
            raise InputError(f"{option}: expected for a network that was not trained by tinyldm")
    assert vae is not None
    assert text_encoder is not None
    assert size is not None
    autoencoder = AutoencoderKL.load(vae)
    encoder = TextEncoder.load(text_encoder, padded=elsewhere.padded)
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
    if elsewhere.padded:
        config["condition"] = {"task": "text", "name": text_encoder, "padded": True}
    # x0 is the latent times scaling_factor
    std = torch.full((c, 1, 1), 1 / autoencoder.config.scaling_factor)
    null = encoder.encode([""])  # the null condition: the empty text
    return config, stored_latents(torch.zeros(c, 1, 1), std, null)


def of_pipeline(source: Path) -> Elsewhere:
    """What a published pipeline says about its network by the folders beside it.

    InputError for a pipeline without text encoder or autoencoder.
    """
    unet = unet_folder(source)
    assert unet is not None
    for part in ("vae", "text_encoder", "tokenizer"):
        if not (source / part).is_dir():
            raise InputError(f"{source}: no {part}/ beside its unet/; expected a whole pipeline")
    sample_size = read_json(unet / "config.json", dict[str, Any]).get("sample_size")
    as_type(sample_size, f"{unet / 'config.json'}: sample_size", Side | tuple[Side, Side])
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    factor = AutoencoderKL.load(source).factor
    size = (height * factor, width * factor)
    return Elsewhere(str(source), str(source), size=size, padded=True)
