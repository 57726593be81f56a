"""The settings of a training run: one frozen value, made from the command line or read back from a run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace

from tinyldm.device import PRECISIONS
from tinyldm.errors import InputError
from tinyldm.tasks.labels import FORMS
from tinyldm.tasks.table import SMALL, TASKS, task_defaults

CLIP = "openai/clip-vit-base-patch32"
LR_SCHEDULES = ("constant", "cosine", "step", "plateau")
RESUMABLE = {
    "data",
    "max_steps",
    "sample_every",
    "save_every",
    "workers",
    "device",
    "compile",
    "accumulate",
    "skip_bad",
}
"""Settings that may change when a run is resumed; of data only the place, its contents are compared."""


@dataclass(frozen=True)
class TrainSettings:
    """All that decides a run. size is (height, width) in pixels; counts and periods are optimiser steps."""

    data: str | None = None  # None: the toy monsters
    task: str = "text"
    preset: str = "toy"
    size: tuple[int, int] = (64, 64)
    text_encoder: str = "tiny"
    vae: str = "tiny"
    label_form: str = "tokens+vector"
    image_encoder: str = "tiny"
    centre: bool = False
    cfg_drop: float = 0.1
    style_drop: float = 0.1
    max_steps: int = 2000
    batch_size: int = 32  # images an optimiser step, over all processes and accumulations
    accumulate: int = 1
    lr: float = 1e-3
    lr_schedule: str = "cosine"
    lr_decay: float = 0.5  # step, plateau: factor of one reduction
    lr_every: int = 10_000  # step, plateau: steps between two looks
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9999
    precision: str = "auto"
    prediction: str = "v"
    schedule: str = "cosine"
    zero_snr: bool = False
    shift: float = 0.5  # of the schedule, for the twelve channels of the tiny VAE
    snr_gamma: float = 0.0  # 0: every t weighs the same
    perceptual: float = 0.0
    perceptual_from: int = 0
    flip: bool = True
    crop: float = 1.0  # least share of the area
    jitter: float = 0.0
    copies: int = 0
    hold_out: float = (
        0.0  # share of the images kept out of the training, for python -m tinyldm sweep
    )
    sample_every: int = 500
    save_every: int = 500
    preview_guidance: float = 3.0
    skip_bad: bool = False
    seed: int = 0
    workers: int = 2
    device: str = "auto"
    compile: bool = False

    def __post_init__(self):
        def need(condition: bool, name: str, expected: str):
            if not condition:
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} is {getattr(self, name)}, expected {expected}")

        for f in fields(self):
            value = getattr(self, f.name)
            need(not isinstance(value, float) or math.isfinite(value), f.name, "a finite number")
        for name in (
            "max_steps",
            "batch_size",
            "accumulate",
            "lr_every",
            "sample_every",
            "save_every",
            "workers",
        ):
            need(getattr(self, name) >= 1, name, "1 or more")
        for name in (
            "warmup",
            "weight_decay",
            "snr_gamma",
            "copies",
            "preview_guidance",
            "perceptual",
            "perceptual_from",
        ):
            need(getattr(self, name) >= 0, name, "0 or more")
        for name in ("lr", "clip"):
            need(getattr(self, name) > 0, name, "a number above 0")
        for name in ("cfg_drop", "style_drop"):
            need(0 <= getattr(self, name) <= 1, name, "a probability from 0 to 1")
        need(0.001 <= self.shift <= 1000, "shift", "a factor from 0.001 to 1000")
        need(0 <= self.seed < 2**63, "seed", "0 or more, and below 2^63")
        need(0 < self.lr_decay <= 1, "lr_decay", "a factor above 0, at most 1")
        need(0 <= self.ema < 1, "ema", "a decay of at least 0 and below 1 (0 is none)")
        need(min(self.size) >= 8, "size", "at least 8 pixels")
        choices = {"task": TASKS, "lr_schedule": LR_SCHEDULES, "precision": PRECISIONS}
        choices |= {
            "label_form": FORMS,
            "prediction": ("eps", "x0", "v"),
            "schedule": ("linear", "scaled_linear", "cosine"),
        }
        for name, allowed in choices.items():
            need(getattr(self, name) in allowed, name, f"one of {', '.join(allowed)}")
        need(
            not self.perceptual or self.vae != "none",
            "perceptual",
            "0 with --vae none: there is no decoder",
        )
        need(
            self.perceptual > 0 or not self.perceptual_from,
            "perceptual_from",
            "0 without --perceptual",
        )
        if self.zero_snr and self.prediction == "eps":
            raise InputError(
                "--zero-snr with --prediction eps: at zero SNR eps tells nothing of x0; expected v or x0"
            )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> TrainSettings:
        """The inverse of to_dict(); an unknown key is refused."""
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls(**{**values, "size": tuple(values["size"])} if "size" in values else values)

    def resumed(self, given: dict) -> TrainSettings:
        """These settings with those that were given anew; only RESUMABLE ones may differ."""
        for name, value in given.items():
            if name not in RESUMABLE and value != getattr(self, name):
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"{option} {value}: the run was started with {getattr(self, name)}; "
                    "start another one with --out"
                )
        return replace(self, **given)


REAL_DATA = dict(
    preset="base",
    size=(256, 256),
    text_encoder=CLIP,
    image_encoder=CLIP,
    vae="CompVis/stable-diffusion-v1-4",
    max_steps=100_000,
    batch_size=64,
    shift=1.0,
    lr=1e-4,
    lr_schedule="constant",
    warmup=1000,
    sample_every=2000,
    save_every=2000,
)
"""Defaults for data of one's own: the assignment's frozen models, a network and a length for a GPU."""

SMALL_LATENTS = dict(
    preset="toy",
    lr=1e-3,
    lr_schedule="cosine",
    max_steps=6000,
    batch_size=32,
    shift=0.5,
    warmup=100,
    sample_every=500,
    save_every=500,
)
"""Defaults for small data of one's own, under the tiny VAE or for labels: the toy network, an hour on two cores."""


def defaults_for(given: dict, native: tuple[int, int], task: str = "text") -> TrainSettings:
    """The settings for what was given: the toy's defaults, or those for real data; native: (h, w) of its images."""
    of_task = task_defaults(task, given, native)
    if given.get("data") is None:
        return _used(TrainSettings.from_dict(given), given)
    small = native[0] == native[1] < REAL_DATA["size"][0]
    values = REAL_DATA | ({"size": native} if small else {}) | of_task
    if max(given.get("size", values["size"])) <= 128 and (
        task != "text" or given.get("vae") == "tiny"
    ):
        values |= SMALL_LATENTS | SMALL[task]
    return _used(TrainSettings.from_dict(values | given | {"task": task}), given)


def _used(settings: TrainSettings, given: dict) -> TrainSettings:
    """The settings, if none of what was given would be ignored."""
    steps = settings.lr_schedule in ("step", "plateau")
    for name, used in {
        "lr_decay": steps,
        "lr_every": steps,
        "preview_guidance": settings.cfg_drop,
    }.items():
        if name in given and not used:
            where = (
                "--cfg-drop above 0"
                if name == "preview_guidance"
                else "--lr-schedule step or plateau"
            )
            raise InputError(
                f"--{name.replace('_', '-')} {given[name]}: would be ignored, expected {where}"
            )
    return settings
