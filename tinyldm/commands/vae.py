"""python -m tinyldm vae: train your own autoencoder, which train.py --vae then takes."""

from __future__ import annotations

import csv
from argparse import ArgumentParser, Namespace
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from tinyldm.cli import STEPS, as_typed, flag_of, parse_size, whole
from tinyldm.errors import InputError, say
from tinyldm.installation import called
from tinyldm.signals import Stopped, StopRequest, stop_on_signal
from tinyldm.stage_one.recipe import Recipe

if TYPE_CHECKING:
    from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL

DEFAULTS = Recipe(steps=3000, batch_size=16, lr=1.5e-3, kl=1e-5, augment=0.0, flip=0.5)
OPTIONS = {f.name: f.metadata["option"] for f in fields(Recipe) if f.metadata}


def add_arguments(parser: ArgumentParser) -> None:
    """The one part of the command, train, and its options."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    text = (
        "train an autoencoder, or continue to train one; measures PSNR and SSIM on held-out images"
    )
    train = parts.add_parser("train", help=text, description=text)
    add_data(train)
    add_shape(train)
    recipe = train.add_argument_group("training")
    for name, how in OPTIONS.items():
        value = getattr(DEFAULTS, name)
        placeholder = "N" if how.bounds.kind is int else "X"
        recipe.add_argument(
            flag_of(name), type=how.bounds, default=value, metavar=placeholder, help=how.help
        )
    add_run(train)


def add_data(train: ArgumentParser) -> None:
    """The options that say what to train on."""
    group = train.add_argument_group("data")
    text = "an assignment's folder, or any folder of images"
    group.add_argument("--data", metavar="FOLDER", type=Path, required=True, help=text)
    text = "size in pixels to squash the images to: 64, or WIDTHxHEIGHT"
    group.add_argument("--size", type=parse_size, default="64", help=text)
    text = "leave out missing or broken images, and count them"
    group.add_argument("--skip-bad", action="store_true", help=text)


def add_shape(train: ArgumentParser) -> None:
    """The options that say what the autoencoder looks like."""
    group = train.add_argument_group("shape")
    text = "an autoencoder to start from: tiny, a folder or a hub name"
    group.add_argument("--start", metavar="NAME", help=text)
    text = "channels at each size (default: 16 32 96)"
    group.add_argument("--widths", type=whole(1, 2**14), nargs="+", metavar="N", help=text)
    text = "channels of the latents (default: 12)"
    group.add_argument("--latent-channels", type=whole(1, 2**14), metavar="N", help=text)


def add_run(train: ArgumentParser) -> None:
    """The options that say where the training goes on and what it leaves."""
    group = train.add_argument_group("run")
    group.add_argument("--out", type=Path, required=True, help="the folder to write")
    text = "steps between measurements, each with a checkpoint"
    group.add_argument("--save-every", type=STEPS, default=500, help=text)
    text = "continue what was stopped there; give the same command again with it"
    group.add_argument("--resume", action="store_true", help=text)
    text = "write into a folder that is not empty, and replace the autoencoder there"
    group.add_argument("--overwrite", action="store_true", help=text)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options: Namespace) -> None:
    """Train on the images of a folder but for those held out, and say how well these are kept."""
    check(options)
    from tinyldm.device import pick_device
    from tinyldm.folders import owned
    from tinyldm.stage_one.pictures import read_pictures
    from tinyldm.stage_one.progress import AUTOENCODER
    from tinyldm.stage_one.training import train_autoencoder

    device = pick_device(options.device)
    start = shape_of(options)
    check_size(options.size, start.factor)
    images, held_out = read_pictures(options.data, options.size, options.skip_bad)
    recipe = Recipe(**{name: getattr(options, name) for name in OPTIONS})
    with owned(options.out, AUTOENCODER, "--out"), stop_on_signal() as stop:
        train_autoencoder(
            start,
            images,
            recipe,
            options.out,
            held_out={"held_out": held_out},
            save_every=options.save_every,
            device=device,
            resume=options.resume,
            stop=stop,
        )
    report(options, len(held_out), stop)


def check(options: Namespace) -> None:
    """InputError: an option does not go with another."""
    from tinyldm.folders import check_free
    from tinyldm.stage_one.progress import AUTOENCODER

    has_critic = options.adversarial or options.perceptual
    if options.critic_from and not (has_critic and options.critic_from < options.steps):
        raise InputError(
            f"--critic-from {options.critic_from}: belongs to --adversarial and --perceptual, "
            "below --steps"
        )
    if options.start and (options.widths or options.latent_channels):
        raise InputError(
            f"--start {options.start}: has a shape of its own; "
            "leave --widths and --latent-channels out"
        )
    if options.resume and options.overwrite:
        raise InputError("--resume with --overwrite: expected one of them")
    if not options.resume:
        check_free(options.out, AUTOENCODER, options.overwrite)


def check_size(size: tuple[int, int], factor: int) -> None:
    """InputError: images of a size (h, w) do not fit an autoencoder of this factor."""
    if any(side % factor or side < 2 * factor for side in size):
        raise InputError(
            f"--size {as_typed(size)}: expected sides that are multiples of {factor}, "
            "at least twice that"
        )


def shape_of(options: Namespace) -> AutoencoderConfig | AutoencoderKL:
    """The autoencoder to go on from, or the shape of a new one: where not given, the tiny one's."""
    from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL

    if options.start:
        return AutoencoderKL.load(options.start)
    return AutoencoderConfig(
        block_out_channels=tuple(options.widths or (16, 32, 96)),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        latent_channels=options.latent_channels or 12,
    )


def report(options: Namespace, held_out: int, stop: StopRequest) -> None:
    """Print the last scores and what to do next; Stopped if the training was."""
    with open(options.out / "scores.csv", newline="", encoding="utf-8") as file:
        step, psnr, _pooled, ssim = list(csv.reader(file))[-1]
    say(
        f"{options.out}: after {step} steps PSNR {psnr} dB, SSIM {ssim} "
        f"on {held_out} images held out"
    )
    if int(step) < options.steps:
        say("stopped; continue with the same command and --resume")
        raise Stopped(stop.number)
    train = called("python train.py")
    say(f"use it with: {train} --data {quote(str(options.data))} --vae {quote(str(options.out))}")
