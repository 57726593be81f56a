"""What scripts ask of diffusers.utils about where they run, and the names of files."""

from __future__ import annotations

from importlib.util import find_spec

WEIGHTS_NAME = "diffusion_pytorch_model.bin"  # a name for scripts; such files are not read here
SAFETENSORS_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
CONFIG_NAME = "config.json"


def check_min_version(min_version: str) -> None:
    """Nothing: this is no version of diffusers. docs/compat.md says which one it follows."""


def is_accelerate_available() -> bool:
    """Whether accelerate is installed."""
    return find_spec("accelerate") is not None


def is_tensorboard_available() -> bool:
    """Whether tensorboard is installed."""
    return find_spec("tensorboard") is not None


def is_wandb_available() -> bool:
    """Whether wandb is installed."""
    return find_spec("wandb") is not None


def is_xformers_available() -> bool:
    """Whether xformers is installed; nothing here uses it."""
    return find_spec("xformers") is not None
