"""python -m tinyldm vae: train an autoencoder of one's own, which train.py --vae then takes."""

from __future__ import annotations

from pathlib import Path

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.cli import parse_size
from tinyldm.commands.evaluator import check_empty, check_numbers, claimed, leave_out_broken
from tinyldm.data.examples import IMAGE_SUFFIXES, Example, Examples
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.scores.evaluator import read_pixels, split
from tinyldm.stage_one.training import Recipe, train_autoencoder
from tinyldm.tasks.table import FORMATS, read_examples
from tinyldm.training.signals import stop_on_signal

HELD_OUT = 256  # images that it is measured by, at most a tenth of all
OPTIONS = {  # fields of Recipe: help
    "steps": "optimiser steps",
    "batch_size": "images a step",
    "lr": "highest learning rate",
    "kl": "weight of the latents' divergence from N(0, 1)",
    "squared": "weight of the squared error, beside L1's of 1",
    "ema": "decay of the averaged weights",
    "augment": "share of batches that are turned, recoloured and relit",
    "flip": "share of batches that are mirrored",
    "adversarial": "weight of a patch critic's verdict; 0: none",
    "perceptual": "weight of the distance in a critic's features; 0: none",
    "critic_from": "step from which the critic counts",
    "seed": "of weights and order",
}


def add_arguments(parser):
    """Its one part, train, and the options of that."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    text = "train it, or go on training one, with its PSNR and SSIM on images held out"
    train = parts.add_parser("train", help=text, description=text)
    what = train.add_argument_group("data")
    what.add_argument(
        "--data",
        metavar="FOLDER",
        required=True,
        help="an assignment's folder, or any folder of images",
    )
    what.add_argument(
        "--size",
        type=parse_size,
        default="64",
        help="pixels to squash them to: 64, or WIDTHxHEIGHT",
    )
    what.add_argument(
        "--skip-bad",
        action="store_true",
        help="count and leave out images that are missing or broken",
    )
    shape = train.add_argument_group("shape")
    shape.add_argument(
        "--start", metavar="NAME", help="an autoencoder to go on from: tiny, a folder, a hub name"
    )
    shape.add_argument(
        "--widths",
        type=int,
        nargs="+",
        metavar="N",
        help="channels at each size (default: 16 32 96)",
    )
    shape.add_argument(
        "--latent-channels", type=int, metavar="N", help="channels of the latents (default: 12)"
    )
    recipe = train.add_argument_group("training")
    defaults = Recipe(steps=3000, batch_size=16, lr=1.5e-3, kl=1e-5, augment=0.0, flip=0.5)
    for name, text in OPTIONS.items():
        value = getattr(defaults, name)
        recipe.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, metavar="X", help=text
        )
    out = train.add_argument_group("run")
    out.add_argument("--out", type=Path, required=True, help="the folder to write")
    out.add_argument("--save-every", type=int, default=500, help="steps between two measurements")
    out.add_argument(
        "--resume",
        action="store_true",
        help="go on with what was stopped there: the same command again",
    )
    out.add_argument(
        "--overwrite", action="store_true", help="write into a folder that is not empty"
    )
    out.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options):
    """Train on the images of a folder but for those held out, and tell how well these are kept."""
    check(options)
    examples = read_images(Path(options.data), options.skip_bad)
    held = split([example.name for example in examples], examples.format)
    if not held.any() or held.all():
        raise InputError(f"--data {options.data}: {len(examples)} images, too few to hold some out")
    device, model = pick_device(options.device), shape_of(options)
    factor = 2 ** (len((model.config if options.start else model).block_out_channels) - 1)
    if any(side % factor or side // factor < 2 for side in options.size):
        h, w = options.size
        raise InputError(
            f"--size {w}x{h}: expected sides that are multiples of {factor}, at least twice that"
        )
    pixels = read_pixels([example.image for example in examples], options.size).permute(
        0, 2, 3, 1
    )  # (n, h, w, 3)
    some = pixels[held][:: max(1, int(held.sum()) // HELD_OUT)][:HELD_OUT]
    recipe = {name: getattr(options, name) for name in OPTIONS}
    with claimed(options.out), stop_on_signal() as stop:
        train_autoencoder(
            model,
            pixels[~held],
            recipe.pop("steps"),
            options.out,
            {"held_out": some.numpy()},
            stop=stop,
            save_every=options.save_every,
            device=device,
            resume=options.resume,
            **recipe,
        )
    last = (options.out / "scores.csv").read_text().strip().splitlines()[-1].split(",")
    print(
        f"{options.out}: after {last[0]} steps PSNR {last[1]} dB, SSIM {last[3]} on {len(some)} images held out"
    )
    if int(last[0]) < options.steps:
        print("stopped; go on with the same command and --resume")
        raise KeyboardInterrupt
    print(f"use it with: python train.py --data {options.data} --vae {options.out}")


def check(options) -> None:
    """InputError: options that go together with no others, or lie beyond what they may be."""
    check_numbers(
        options,
        above=("steps", "batch_size", "lr", "save_every", "latent_channels"),
        least=("kl", "squared", "adversarial", "perceptual", "critic_from"),
    )
    if min(options.widths or [1]) < 1:
        raise InputError(f"--widths {' '.join(map(str, options.widths))}: expected 1 or more each")
    for name in ("augment", "flip", "ema"):
        if not 0 <= (value := getattr(options, name)) <= (1 if name != "ema" else 0.99999):
            raise InputError(f"--{name} {value}: expected a share from 0 to 1")
    if options.critic_from and not (
        options.critic_from < options.steps and (options.adversarial or options.perceptual)
    ):
        raise InputError(
            f"--critic-from {options.critic_from}: belongs to --adversarial and --perceptual, below --steps"
        )
    if options.start and (options.widths or options.latent_channels):
        raise InputError(
            f"--start {options.start}: has a shape of its own; leave --widths and --latent-channels out"
        )
    if options.resume and options.overwrite:
        raise InputError("--resume with --overwrite: expected one of them")
    if not options.resume:
        check_empty(options.out, options.overwrite)


def read_images(folder: Path, skip_bad: bool) -> Examples:
    """The training images of an assignment's folder, or all images in any other."""
    if not folder.is_dir() or any(known.detect(folder) for known in FORMATS.values()):
        examples = read_examples(folder, skip_bad=skip_bad)
    else:
        examples = Examples(
            Example(f, ()) for f in sorted(folder.rglob("*")) if f.suffix.lower() in IMAGE_SUFFIXES
        )
    if skip_bad:
        leave_out_broken(examples)
    if not examples:
        raise InputError(f"--data {folder}: no images in it")
    return examples


def shape_of(options) -> AutoencoderConfig | AutoencoderKL:
    """The autoencoder to go on from, or the shape of a new one: that of the one that ships, but for what is given."""
    if options.start:
        return AutoencoderKL.load(options.start)
    return AutoencoderConfig(
        block_out_channels=options.widths or (16, 32, 96),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        latent_channels=options.latent_channels or 12,
    )
