"""python -m tinyldm convert: a run as a folder of diffusers (unet/, scheduler/), and such a folder as a run."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor

from tinyldm.cli import parse_size
from tinyldm.compat.schedule import KINDS, PREDICTIONS, TableSchedule
from tinyldm.compat.schedulers import DDPMScheduler, DPMSolverMultistepScheduler
from tinyldm.compat.unet import UNet2DConditionModel, UNet2DModel, from_native
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.training.checkpoint import (
    load_checkpoint,
    load_weights,
    read_config,
    read_tensors,
    save_checkpoint,
)

OWN = "tinyldm"  # the folder, beside unet/ and scheduler/, of what diffusers has no place for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where from and where to; and, for a network trained elsewhere, what its folder doesn't say."""
    parser.add_argument(
        "source", type=Path, help="a run, a checkpoint, or a folder with unet/ and scheduler/ in it"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder to write, which must not be there yet"
    )
    group = parser.add_argument_group("for a folder that no run was converted to")
    group.add_argument("--vae", help="the autoencoder it was trained with: a folder or a hub name")
    group.add_argument(
        "--text-encoder", help="the text encoder it was trained with: a folder or a hub name"
    )
    group.add_argument("--size", type=parse_size, help="pixels: 64, or WIDTHxHEIGHT")


def run(options: argparse.Namespace) -> None:
    """Convert in the direction that the source asks for."""
    source, out = options.source, options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists already; expected a new folder")
    try:
        if (source / "unet" / "config.json").is_file():
            to_run(source, out, options.vae, options.text_encoder, options.size)
        elif options.vae or options.text_encoder or options.size:
            raise InputError(
                f"{source}: no unet/ in it; --vae, --text-encoder and --size are for diffusers' folders"
            )
        else:
            to_diffusers(source, out)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source}: can't be converted: {error}") from None
    print(f"{source} is now {out}")


def to_diffusers(source: Path, out: Path) -> None:
    """Write a run's averaged weights and schedule as diffusers' folders, and what else sampling needs beside them."""
    checkpoint = load_checkpoint(source)
    _, height, width = checkpoint.config["latent_shape"]
    unet = from_native(
        checkpoint.network.config, sample_size=height if height == width else (height, width)
    )
    unet.load_state_dict(checkpoint.network.state_dict(), assign=True)
    scheduler = DPMSolverMultistepScheduler(
        **_betas(checkpoint.schedule),
        rescale_betas_zero_snr=checkpoint.schedule.zero_snr,
        timestep_spacing="trailing",
        prediction_type={ours: theirs for theirs, ours in PREDICTIONS.items()}[
            checkpoint.prediction
        ],
    )
    unet.save_pretrained(out / "unet")
    scheduler.save_pretrained(out / "scheduler")
    (out / OWN).mkdir()
    for name in ("config.json", "latents.safetensors"):
        shutil.copyfile(checkpoint.path / name, out / OWN / name)


def _betas(schedule: NoiseSchedule) -> dict:
    """The settings of diffusers' schedulers for a schedule: a table of betas where they know no other way."""
    s = schedule
    if s.shift != 1:
        before = torch.cat([torch.ones(1), s.alpha_bar[:-1]])
        betas = (1 - s.alpha_bar / before).clamp(max=1 - 1e-12)
        return {"num_train_timesteps": s.timesteps, "trained_betas": betas.tolist()}
    ends = {} if s.beta_start is None else {"beta_start": s.beta_start, "beta_end": s.beta_end}
    kind = {ours: theirs for theirs, ours in KINDS.items()}[s.kind]
    return {"num_train_timesteps": s.timesteps, "beta_schedule": kind, **ends}


def to_run(
    source: Path, out: Path, vae: str | None, text_encoder: str | None, size: tuple[int, int] | None
) -> None:
    """Write the network and schedule of diffusers' folders as a run of one checkpoint, from which one samples."""
    name = UNet2DModel.load_config(source / "unet").get("_class_name")
    kinds = {kind.__name__: kind for kind in (UNet2DConditionModel, UNet2DModel)}
    if name not in kinds:
        raise InputError(
            f"{source / 'unet' / 'config.json'}: of class {name}, expected {' or '.join(kinds)}"
        )
    unet = kinds[name].from_pretrained(source / "unet")
    scheduler = DDPMScheduler.from_pretrained(source / "scheduler")
    schedule = scheduler.schedule
    if (source / OWN).is_dir():
        if vae or text_encoder or size:
            raise InputError(f"{source}: was a run, which says --vae, --text-encoder and --size")
        config, latents = (
            read_config(source / OWN),
            read_tensors(source / OWN / "latents.safetensors"),
        )
        was = NoiseSchedule.from_dict(config["schedule"])
        if torch.allclose(was.alpha_bar, schedule.alpha_bar, atol=1e-9):
            schedule = was
    if isinstance(schedule, TableSchedule):
        raise InputError(f"{source / 'scheduler'}: trained_betas are not supported in a run")
    if not (source / OWN).is_dir():
        config, latents = _trained_elsewhere(unet, vae, text_encoder, size)
    config |= {"schedule": schedule.to_dict(), "prediction": scheduler.prediction}
    network = UNet(UNetConfig.from_dict(config["network"]))
    load_weights(network, unet.state_dict(), source / "unet")
    folder = out / "checkpoints" / f"step-{config['step']:07d}"
    save_checkpoint(folder, config, {"model": network.state_dict(), "latents": latents})


def _trained_elsewhere(unet, vae, text_encoder, size) -> tuple[dict, dict[str, Tensor]]:
    """The config of a checkpoint, and its latents' statistics and null condition: the empty text."""
    from tinyldm.autoencoder.kl import AutoencoderKL
    from tinyldm.frozen.text import TextEncoder

    for option, value in {"--vae": vae, "--text-encoder": text_encoder, "--size": size}.items():
        if value is None:
            raise InputError(f"{option}: expected for a network that was not trained by tinyldm")
    frozen = {"vae": AutoencoderKL.load(vae), "text_encoder": TextEncoder.load(text_encoder)}
    c, factor = frozen["vae"].latent_channels, frozen["vae"].factor
    null = {
        f"null.{name}": part for name, part in frozen["text_encoder"].encode([""]).parts().items()
    }
    std = torch.full(
        (c, 1, 1), 1 / frozen["vae"].config.scaling_factor
    )  # x0 is the latent times scaling_factor
    config = {
        "step": 0,
        "network": unet.config.native.to_dict(),
        "vae": vae,
        "text_encoder": text_encoder,
        **{f"{kind}_fingerprint": model.fingerprint for kind, model in frozen.items()},
        "size": list(size),
        "latent_shape": [c, *(side // factor for side in size)],
        "preview_prompts": [],
        "settings": {"cfg_drop": 0.1},
    }
    return config, {"mean": torch.zeros(c, 1, 1), "std": std, **null}
