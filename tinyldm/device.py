"""Which device a job runs on, and in which precision."""

from __future__ import annotations

import os
import platform
from contextlib import nullcontext

import torch

from tinyldm.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16")


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first of cuda, mps and cpu that is there."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
        raise InputError(
            f"--device {name}: not usable here ({str(error).splitlines()[0].split('. ')[0]})"
        ) from None
    return device


def describe(device: torch.device, count: int = 1) -> str:
    """What computes, in words: count devices of a kind, and the version of torch."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {os.cpu_count()} cores"
    )
    return f"{f'{count} x ' if count > 1 else ''}{name}, {platform.machine()}, torch {torch.__version__}"


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 matrix products in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(
        getattr(torch.cpu, probe, lambda: False)() for probe in probes
    )


def autocast(device: torch.device, precision: str = "auto"):
    """A fresh context in which a network runs in the precision asked for; "auto" is bfloat16 where that is fast."""
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    wanted = precision == "bfloat16" or (precision == "auto" and _fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()
