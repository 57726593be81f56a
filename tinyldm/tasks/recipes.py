"""Defaults of train.py for data of your own: a whole recipe for each kind of data.

A run's settings are the defaults of TrainSettings (the toy set's), over them the recipe that its
task picks here, over that the options that were given. What goes with an option that was given,
such as the prediction with a schedule, is decided in training/chosen.py.
"""

from typing import Any

CLIP = "openai/clip-vit-base-patch32"
SD_VAE = "CompVis/stable-diffusion-v1-4"

# The assignment's frozen models at 256x256, and a network and a length for a GPU.
FULL: dict[str, Any] = {
    "preset": "base",
    "size": (256, 256),
    "text_encoder": CLIP,
    "image_encoder": CLIP,
    "vae": SD_VAE,
    "max_steps": 100_000,
    "batch_size": 64,
    "prediction": "v",
    "schedule": "cosine",
    "shift": 1.0,
    "optimizer": "adamw",
    "t_sampling": "uniform",
    "loss_weights": "plain",
    "lr": 1e-4,
    "lr_schedule": "constant",
    "warmup": 1000,
    "sample_every": 2000,
    "save_every": 2000,
}

# Pictures of up to 128 pixels under the tiny VAE: the toy network, an hour on two cores.
SMALL: dict[str, Any] = {
    "preset": "toy",
    "max_steps": 6000,
    "batch_size": 32,
    "prediction": "v",
    "schedule": "cosine",
    "shift": 0.5,
    "optimizer": "adamw",
    "t_sampling": "uniform",
    "loss_weights": "plain",
    "lr": 1e-3,
    "lr_schedule": "cosine",
    "warmup": 100,
    "sample_every": 500,
    "save_every": 500,
}

# AdamW with even loss weights, more noise and a linear decay: the recipe of docs/iclevr.md.
SMALL_LABELS: dict[str, Any] = {
    **SMALL,
    "max_steps": 15_600,
    "shift": 0.25,
    "t_sampling": "stratified",
    "loss_weights": "even",
    "lr": 1.5e-3,
    "lr_schedule": "linear",
    "sample_every": 1300,
    "save_every": 1300,
}

# The half hour of docs/landscapes.md.
SMALL_LANDSCAPES: dict[str, Any] = {
    **SMALL,
    "vae": "tiny",
    "image_encoder": "tiny",
    "max_steps": 2000,
}

LARGEST_SMALL = 128
"""The small recipes apply to pictures of up to this many pixels a side."""
