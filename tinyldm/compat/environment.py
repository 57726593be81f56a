"""What scripts ask of diffusers.utils about where they run, and the names of files."""

from __future__ import annotations

import operator
from importlib import metadata
from importlib.util import find_spec

from torch import nn
from torch.torch_version import TorchVersion

WEIGHTS_NAME = "diffusion_pytorch_model.bin"  # a name for scripts; such files are not read here
SAFETENSORS_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
CONFIG_NAME = "config.json"
OPERATIONS = {
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    "<": operator.lt,
}


def check_min_version(min_version: str) -> None:
    """Nothing: this is no version of diffusers. docs/compat.md says which one it follows."""


def is_accelerate_available() -> bool:
    """Whether accelerate is installed."""
    return find_spec("accelerate") is not None


def is_accelerate_version(operation: str, version: str) -> bool:
    """Whether accelerate is installed in such a version: is_accelerate_version(">=", "0.16.0")."""
    if operation not in OPERATIONS:
        raise ValueError(f"operation {operation!r}: expected one of {', '.join(OPERATIONS)}")
    installed = installed_version("accelerate")
    return installed is not None and bool(OPERATIONS[operation](installed, version))


def installed_version(package: str) -> TorchVersion | None:
    """The version of a package, which compares with texts as versions do; None without it."""
    try:
        return TorchVersion(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


def is_tensorboard_available() -> bool:
    """Whether tensorboard is installed."""
    return find_spec("tensorboard") is not None


def is_wandb_available() -> bool:
    """Whether wandb is installed."""
    return find_spec("wandb") is not None


def is_xformers_available() -> bool:
    """Whether xformers is installed; nothing here uses it."""
    return find_spec("xformers") is not None


def is_compiled_module(module: nn.Module) -> bool:
    """Whether torch.compile has wrapped a module, which then lies in its _orig_mod."""
    return "_orig_mod" in dict(module.named_children())


def set_verbosity_info() -> None:
    """Nothing: this library has no log."""


def set_verbosity_warning() -> None:
    """Nothing: this library has no log."""


def set_verbosity_error() -> None:
    """Nothing: this library has no log."""
