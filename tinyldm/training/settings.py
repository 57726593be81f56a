"""The settings of a training run: a frozen value, from the command line or from a saved run.

Each field declares its option of train.py beside its default. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from tinyldm.cli import (
    BATCH_SIZE,
    GUIDANCE,
    SEED,
    STEPS,
    as_typed,
    check_options,
    flag_of,
    option,
    parse_size,
    real,
    whole,
)
from tinyldm.device import PRECISIONS
from tinyldm.errors import InputError, shortened
from tinyldm.spelling import nearest
from tinyldm.tasks.recipes import FULL

LR_SCHEDULES = ("constant", "linear", "cosine", "step", "plateau")
PREDICTIONS = ("eps", "x0", "v", "flow")
SCHEDULES = ("linear", "scaled_linear", "cosine", "flow")
T_SAMPLINGS = ("uniform", "logit-normal", "stratified")
LOSS_WEIGHTS = ("plain", "even")
OPTIMIZERS = ("adamw", "muon")
RATE = real(0, 1000, exclusive=True)  # a learning rate
LANDSCAPES = "landscapes (--task landscape)"
LABEL_FORMS = ("tokens", "vector", "maps", "tokens+vector")

data_option = partial(option, group="data")
model_option = partial(option, group="model")
training_option = partial(option, group="training")
run_option = partial(option, group="run")
caption_option = partial(option, group="pictures with captions (--task text)")
label_option = partial(option, group="labels and classes (--task labels, --task classes)")
landscape_option = partial(option, group=LANDSCAPES)
super_resolution_option = partial(option, group="super-resolution (--task super-resolution)")
adapting_option = partial(option, group="adapting a run (--from RUN)")


def toy_and_own(name: str, value: Any) -> str:
    """The default of the toy set, and that for data of your own, as the help shows them."""
    return f"{value}; with --data: {FULL[name]}"


@dataclass(frozen=True)
class TrainSettings:
    """All that decides a run. size is (height, width) in pixels; periods are optimiser steps.

    The defaults are those of the toy set; tasks/recipes.py has those for other data.
    """

    data: str | None = data_option(
        None,
        "a folder of images, of class subfolders, with metadata.jsonl, or of an assignment "
        "(default: toy monsters)",
        metavar="FOLDER",
    )
    task: str = data_option(
        "text",
        "what the pictures are conditioned on: text, labels, landscape, classes or unconditional, "
        "detected from the files of --data; or outline, super-resolution, my_module:MyTask",
        default="",
    )
    size: tuple[int, int] = data_option(
        (64, 64),
        "size in pixels, such as 64, or WIDTHxHEIGHT (docs/data.md tells the defaults)",
        default="64; with --data: 256",
        parse=parse_size,
        metavar="SIZE",
        bounds=whole(8, 2**14),
    )
    factor: int = super_resolution_option(
        4, "how many times larger pictures become", bounds=whole(2, 256)
    )
    flip: bool = data_option(
        True, "also learn from mirrored pictures (default: yes; with labels: no)", negatable=True
    )
    copies: int = data_option(
        0,
        "augmented copies of each picture to cache; --crop and --jitter say how they differ",
        bounds=whole(0, 1000),
    )
    crop: float = data_option(
        1.0, "smallest share of the picture that a copy shows", bounds=real(0, 1, exclusive=True)
    )
    jitter: float = data_option(
        0.0,
        "how much brightness, contrast and saturation of a copy may change",
        bounds=real(0, 0.99),
    )
    skip_bad: bool = data_option(
        False, "leave out broken or missing images, and count them, instead of stopping"
    )
    hold_out: float = data_option(
        0.0,
        "share of the images to hold out of the training, in whole monsters or scenes; "
        "python -m tinyldm sweep judges by them",
        bounds=real(0, 0.5),
    )
    workers: int = data_option(
        2, "threads that read images while the latent cache is built", bounds=whole(1, 256)
    )

    preset: str = model_option(
        "toy",
        "size of the UNet: toy, small, base (128-256-512-512) or large (256-384-512-768)",
        default=toy_and_own("preset", "toy"),
    )
    network: str | None = model_option(
        None, "a network of your own instead of the UNet, as my_module:build; see docs/importing.md"
    )
    text_encoder: str = caption_option(
        "tiny",
        "tiny, or a text encoder that transformers loads, by hub name or folder",
        default=toy_and_own("text_encoder", "tiny"),
    )
    label_form: str = label_option(
        "tokens+vector",
        "what the network gets: tokens to attend to, a vector, or maps beside x_t",
        choices=LABEL_FORMS,
    )
    image_encoder: str = landscape_option(
        "tiny",
        "tiny, or a CLIP whose image tower reads the style off the reference",
        default=toy_and_own("image_encoder", "tiny"),
    )
    vae: str = model_option(
        "tiny",
        "tiny (the default for all but captions and landscapes), none (train on pixels), or an "
        "AutoencoderKL, by hub name or folder",
        default=toy_and_own("vae", "tiny"),
    )
    centre: bool = model_option(
        False,
        "subtract the mean latent of each position, not of each channel (default: labels only)",
        negatable=True,
    )
    prediction: str = model_option(
        "flow",
        "what the network predicts; flow: the velocity eps - x0 of the straight path",
        choices=PREDICTIONS,
        default="flow; with --data or another --schedule: v",
    )
    schedule: str = model_option(
        "flow",
        "noise schedule; flow: the straight path from data to noise",
        choices=SCHEDULES,
        default="flow; with --data, another --prediction or --zero-snr: cosine",
    )
    shift: float = model_option(
        0.5,  # for the twelve channels of the tiny VAE
        "factor of the schedule's alpha / sigma: below 1 is more noise, "
        "for latents of many channels",
        default=toy_and_own("shift", 0.5),
        bounds=real(0.001, 1000),
    )
    zero_snr: bool = model_option(
        False, "rescale the schedule so that it ends in pure noise (2305.08891)"
    )
    consistency: str | None = model_option(
        None,
        "tune this run into one that draws in 1 to 4 steps; other options are as in the run",
        metavar="RUN",
    )
    consistency_from: str = model_option(
        "teacher",
        "what --consistency learns from: the run itself, as a guided teacher, or the data",
        choices=("teacher", "data"),
    )
    teacher_guidance: float = model_option(
        3.0, "guidance scale of that teacher, which the new run then has in it", bounds=GUIDANCE
    )

    lora: int = adapting_option(
        0,
        "rank of the factors that adapt the run, in place of a new network (2106.09685)",
        default="",
        bounds=whole(0, 4096),
    )
    lora_alpha: float | None = adapting_option(
        None,
        "the change is alpha / rank times the factors' product (default: the rank)",
        bounds=real(0, 1e6, exclusive=True),
    )
    lora_layers: str = adapting_option(
        "attention", "layers to adapt: attention, all, or a regular expression of their names"
    )
    controlnet: bool = adapting_option(
        False, "train a copy of its encoder that follows the maps of --task (2302.05543)"
    )

    cfg_drop: float = training_option(
        0.1,
        "probability that a sample is trained without its condition, for classifier-free guidance",
        bounds=real(0, 1),
    )
    style_drop: float = landscape_option(
        0.1,
        "probability that a sample is trained without its style, but with its map",
        bounds=real(0, 1),
    )
    max_steps: int = training_option(
        520, "length of the training", default=toy_and_own("max_steps", 520), bounds=STEPS
    )
    batch_size: int = training_option(
        32,
        "images per optimiser step, over all processes and accumulations together",
        default=toy_and_own("batch_size", 32),
        bounds=BATCH_SIZE,
    )
    accumulate: int = training_option(
        1, "how many parts to split a batch into, to save memory", bounds=BATCH_SIZE
    )
    optimizer: str = training_option(
        "muon",
        "adamw, or muon for the hidden layers and adamw for the rest",
        choices=OPTIMIZERS,
        default=toy_and_own("optimizer", "muon"),
    )
    lr: float = training_option(
        2e-3, "highest learning rate of AdamW", default=toy_and_own("lr", 2e-3), bounds=RATE
    )
    muon_lr: float = training_option(0.02, "highest learning rate of --optimizer muon", bounds=RATE)
    lr_schedule: str = training_option(
        "linear",
        "what the learning rate does after the warm-up; linear and cosine fall to zero",
        choices=LR_SCHEDULES,
        default=toy_and_own("lr_schedule", "linear"),
    )
    lr_decay: float = training_option(
        0.5,
        "factor of each reduction of the learning rate, for the schedules step and plateau",
        bounds=real(0, 1, exclusive=True),
    )
    lr_every: int = training_option(
        10_000,
        "steps between reductions (step), or between looks at the loss (plateau)",
        bounds=STEPS,
    )
    warmup: int = training_option(
        30,
        "steps over which the learning rate rises; unless given, at most a tenth of the steps",
        default=toy_and_own("warmup", 30),
        bounds=whole(0, 10**9),
    )
    weight_decay: float = training_option(
        0.01, "weight decay; norms and biases are not decayed", bounds=real(0, 1000)
    )
    clip: float = training_option(
        1.0,
        "largest norm of the gradient; a larger gradient is scaled down",
        bounds=real(0, 1e9, exclusive=True),
    )
    ema: float = training_option(
        0.9999,
        "decay of the averaged weights, after a warm-up; 0: no average",
        bounds=real(0, 0.9999999),
    )
    post_hoc_ema: bool = training_option(
        False,
        "also save two averages with each checkpoint, from which sample.py --ema-length puts "
        "together one of any length (2312.02696); they take twice the space of the network",
    )
    t_sampling: str = training_option(
        "logit-normal",
        "how the timesteps of training are drawn; logit-normal: most often in the middle "
        "(2403.03206); stratified: spread evenly over a batch",
        choices=T_SAMPLINGS,
        default=toy_and_own("t_sampling", "logit-normal"),
    )
    snr_gamma: float = training_option(
        0.0,
        "gamma of min-SNR weighting (2303.09556), usually 5; 0: none",
        bounds=real(0, 1e9),
    )
    loss_weights: str = training_option(
        "even",
        "even: errors count alike on average, at whatever level of noise (1705.07115); "
        "plain: a level counts as much as its error",
        choices=LOSS_WEIGHTS,
        default="even, also for labels; with other --data or --snr-gamma: plain",
    )
    perceptual: float = training_option(
        0.0,
        "weight of the distance between features of the VAE's decoder (2411.04873); 0: none",
        bounds=real(0, 1e6),
    )
    perceptual_from: int = training_option(
        0, "step from which --perceptual counts", bounds=whole(0, 10**9)
    )
    precision: str = training_option(
        "auto",
        "precision of the network; auto: bfloat16 where the device is fast at it",
        choices=PRECISIONS,
    )
    seed: int = training_option(0, "seed of weights, data order and noise", bounds=SEED)
    device: str = training_option("auto", "auto, cpu, cuda, cuda:1 or mps")
    compile: bool = training_option(False, "compile the network with torch.compile")

    sample_every: int = run_option(
        190, "steps between preview grids", default=toy_and_own("sample_every", 190), bounds=STEPS
    )
    preview_guidance: float = run_option(3.0, "guidance scale of the previews", bounds=GUIDANCE)
    save_every: int = run_option(
        190, "steps between checkpoints", default=toy_and_own("save_every", 190), bounds=STEPS
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.perceptual and self.vae == "none":
            self.refuse("perceptual", "0 with --vae none: there is no decoder")
        if self.perceptual_from and not self.perceptual:
            self.refuse("perceptual_from", "0 without --perceptual")
        if self.snr_gamma and self.loss_weights == "even":
            self.refuse("snr_gamma", "0 with --loss-weights even, which would undo it")
        if self.zero_snr and self.schedule == "flow":
            raise InputError(
                "--zero-snr with --schedule flow: would change nothing; "
                "the straight path ends in pure noise by itself"
            )
        if self.prediction == "eps" and (self.zero_snr or self.schedule == "flow"):
            end = "--zero-snr" if self.zero_snr else "--schedule flow"
            raise InputError(
                f"{end} with --prediction eps: at zero SNR, eps says nothing about x0; "
                "expected v, x0 or flow"
            )

    def refuse(self, name: str, expected: str) -> None:
        """Raise the InputError that names an option, its value and what was expected."""
        raise InputError(f"{flag_of(name)} {as_typed(getattr(self, name))}: expected {expected}")

    def micro_batch(self, processes: int) -> int:
        """Images that one of the processes takes at a time; InputError unless all take as many."""
        parts = self.accumulate * processes
        if self.batch_size % parts:
            self.refuse(
                "batch_size",
                f"a multiple of {parts} (--accumulate {self.accumulate} x {processes} processes)",
            )
        return self.batch_size // parts

    @property
    def kind_of_network(self) -> str:
        """What is trained, in words."""
        network = f"{self.network or self.preset} network"
        if self.lora:
            return f"LoRA of rank {self.lora} for a {network}"
        return f"ControlNet for a {network}" if self.controlnet else network

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """The inverse of to_dict(); InputError for an unknown key, or a value out of bounds."""
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            names = ", ".join(map(shortened, sorted(unknown)))
            likely = nearest(min(unknown), (f.name for f in fields(cls)))
            raise InputError(f"unknown settings: {names}{likely}")
        values = dict(values)
        if "size" in values:
            values["size"] = tuple(values["size"])
        return cls(**values)

    def resumed(self, given: Mapping[str, Any]) -> TrainSettings:
        """These settings, with changes; InputError unless all that differ are RESUMABLE."""
        for name, value in given.items():
            before = getattr(self, name)
            if name not in RESUMABLE and value != before:
                raise InputError(
                    f"{flag_of(name)} {as_typed(value)}: "
                    f"the run was started with {as_typed(before)}; start another one with --out"
                )
        return replace(self, **given)


PLACES = {"data", "consistency"}
"""Settings that name folders, which may have moved; what they hold is compared."""

RESUMABLE = PLACES | {"max_steps", "sample_every", "save_every", "workers", "device", "compile"}
RESUMABLE |= {"accumulate", "skip_bad"}
"""Settings that may change when a run is resumed."""
