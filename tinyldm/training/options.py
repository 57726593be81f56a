"""The options of train.py: what each means, and the settings that follow from those that were given."""

from __future__ import annotations

import argparse

from tinyldm.cli import Parser, parse_size
from tinyldm.device import PRECISIONS
from tinyldm.tasks.labels import FORMS
from tinyldm.tasks.table import TASKS
from tinyldm.training.settings import LR_SCHEDULES, REAL_DATA, TrainSettings

EPILOG = """examples:
  python train.py --cfg-drop 0.1                       toy monsters, everything shipped, about ten minutes on two cores
  python train.py --data hw6                           the monster assignment: SD's VAE, CLIP-B/32, 256x256
  python train.py --data hw6 --vae tiny --text-encoder tiny --size 64   the same without any download
  python train.py --resume                             go on with the latest run
  torchrun --nproc-per-node 8 train.py --data hw6 --batch-size 512      eight GPUs
Up to 128 pixels, with --vae tiny, defaults are the toy's, but for 6000 steps; so they are for landscapes, with 2000
steps, and for labels, with 7800 steps of 64 pictures at a learning rate of 1.5e-3.
"""


def train_parser() -> argparse.ArgumentParser:
    """The parser of train.py; an option that is not given is absent from what it returns."""
    parser = Parser(
        prog="train.py",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        description="Train a conditional latent-diffusion model. Counts and periods are optimiser steps.",
    )
    for title, options in GROUPS.items():
        add_group(parser, title, options)
    return parser


def add_group(parser: argparse.ArgumentParser, title: str, options: dict[str, tuple]):
    """Add options, flag -> (type or choices, help), to a parser under a title."""
    group = parser.add_argument_group(title)
    for flag, (kind, text) in options.items():
        name = flag.replace("-", "_")
        if name in ("compile", "skip_bad", "zero_snr", "resume", "overwrite"):
            group.add_argument(f"--{flag}", action="store_true", help=text)
        elif name in ("flip", "centre"):
            group.add_argument(f"--{flag}", action=argparse.BooleanOptionalAction, help=text)
        elif isinstance(kind, tuple):
            group.add_argument(f"--{flag}", choices=kind, help=text + _default(name))
        else:
            group.add_argument(
                f"--{flag}", type=kind, metavar=METAVARS[kind], help=text + _default(name)
            )


def _default(name: str) -> str:
    """What a setting is if it is not given, for the toy set and, if that differs, for other data."""
    value, other = (
        v[1] if name == "size" else v
        for v in (getattr(TrainSettings(), name, None), REAL_DATA.get(name))
    )
    if value is None or name == "task":
        return ""
    return (
        f" (default: {value})"
        if other in (None, value)
        else f" (default: {value}; with --data: {other})"
    )


METAVARS = {str: "NAME", int: "N", float: "X", parse_size: "SIZE"}

GROUPS: dict[str, dict[str, tuple]] = {
    "data": {
        "data": (
            str,
            "folder of the assignment or an image folder with metadata.jsonl; none: the toy monsters",
        ),
        "task": (TASKS, "what the pictures are conditioned on; told by the files of --data"),
        "size": (
            parse_size,
            "pixels: 64, or WIDTHxHEIGHT; smaller square images keep theirs, labels have 64, landscapes theirs up to 512",
        ),
        "flip": (bool, "also learn from mirrored pictures (default: yes; with labels: no)"),
        "copies": (
            int,
            "augmented copies of each picture in the latent cache, made by --crop and --jitter",
        ),
        "crop": (float, "least share of the area that a copy shows"),
        "jitter": (float, "how far brightness, contrast and saturation of a copy may change"),
        "skip-bad": (bool, "count and leave out broken or missing images instead of stopping"),
        "hold-out": (
            float,
            "share of the images, whole monsters or scenes, kept out for tinyldm sweep to judge by",
        ),
        "workers": (int, "threads that read images while the latent cache is built"),
    },
    "model": {
        "preset": (str, "network: toy, small, base (128-256-512-512) or large (256-384-512-768)"),
        "text-encoder": (str, "tiny, or a transformers text encoder: a hub name or a folder"),
        "label-form": (
            FORMS,
            "what the network is told of labels: tokens to attend to, a vector, or maps beside x_t",
        ),
        "vae": (
            str,
            "tiny, which labels take, none (the pixels), or an AutoencoderKL: a hub name or a folder",
        ),
        "image-encoder": (
            str,
            "for landscapes: tiny, or a CLIP, whose image tower sees the style in the reference",
        ),
        "centre": (
            bool,
            "take off the mean latent, position by position, instead of each channel's mean (default: labels)",
        ),
        "prediction": (("eps", "x0", "v"), "what the network predicts"),
        "schedule": (("linear", "scaled_linear", "cosine"), "noise schedule"),
        "shift": (
            float,
            "factor of the schedule's alpha / sigma: below 1 is more noise, for latents of many channels",
        ),
        "zero-snr": (bool, "rescale the schedule to end in pure noise (2305.08891)"),
    },
    "training": {
        "cfg-drop": (
            float,
            "probability of training a sample without its condition, for classifier-free guidance",
        ),
        "style-drop": (
            float,
            "for landscapes: probability of training a sample without its style, but with its map",
        ),
        "max-steps": (int, "length of the training"),
        "epochs": (int, "the same as passes over the data, instead of --max-steps"),
        "batch-size": (
            int,
            "images an optimiser step, over all processes and accumulations together",
        ),
        "accumulate": (int, "parts that a batch is split into, to save memory"),
        "lr": (float, "highest learning rate"),
        "lr-schedule": (LR_SCHEDULES, "its course after the warm-up"),
        "lr-decay": (float, "factor of one reduction; schedules step and plateau"),
        "lr-every": (int, "steps between two reductions (step) or looks at the loss (plateau)"),
        "warmup": (int, "steps of linear warm-up"),
        "weight-decay": (float, "AdamW's, on matrices alone"),
        "clip": (float, "highest norm of the gradient"),
        "ema": (float, "decay of the averaged weights, which warms up; 0: none"),
        "snr-gamma": (float, "min-SNR weighting (2303.09556), usually 5; 0: none"),
        "perceptual": (
            float,
            "weight of the distance in features of the VAE's decoder (2411.04873); 0: none",
        ),
        "perceptual-from": (int, "step from which that counts"),
        "precision": (PRECISIONS, "of the network; auto: bfloat16 where the device is good at it"),
        "seed": (int, "of weights, data order and noise"),
        "device": (str, "auto, cpu, cuda, mps"),
        "compile": (bool, "compile the network with torch.compile"),
    },
    "run": {
        "out": (str, "run folder (default: runs/NAME-N, the next free number)"),
        "resume": (bool, "go on with the run at --out, or with the latest one"),
        "overwrite": (bool, "replace the run at --out"),
        "sample-every": (int, "steps between preview grids"),
        "preview-guidance": (float, "guidance scale of the previews"),
        "save-every": (int, "steps between checkpoints"),
    },
}
"""Options by group: flag -> (type or choices, help)."""
