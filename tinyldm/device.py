"""Which device a job runs on, and in which precision. This module does not import torch itself."""

from __future__ import annotations

import os
import platform
import warnings
from typing import TYPE_CHECKING

from tinyldm.errors import InputError, reason

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first of cuda, mps and cpu that is available."""
    import torch

    if name == "auto" and torch.cuda.is_available():
        name = "cuda"
    elif name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        with warnings.catch_warnings(action="ignore"):  # of devices that torch is to forget
            device = torch.device(name)
            torch.zeros(1, device=device).cpu()
    except Exception as error:  # each kind of device that is not there raises its own
        why = reason(error).split(". ")[0][:120]
        raise InputError(
            f"--device {name}: not usable here ({why}), expected auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return device


def describe(device: torch.device, count: int = 1) -> str:
    """The machine in words: `count` devices of a kind, and the version of torch."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type}, {os.cpu_count()} cores"
    several = f"{count} x " if count > 1 else ""
    return f"{several}{name}, {platform.machine()}, torch {torch.__version__}"


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        supported = getattr(torch.cpu, name, None)  # not in every version of torch
        if supported is not None and supported():
            return True
    return False


def runs_bfloat16(device: torch.device, precision: str) -> bool:
    """Whether a precision, one of PRECISIONS, is bfloat16 on a device; otherwise it is float32.

    "auto" is bfloat16 where the device is fast at it.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    return precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
