"""Networks by name; in_channels, out_channels and token_dim are replaced to fit the data."""

from __future__ import annotations

from tinyldm.errors import InputError
from tinyldm.nn.config import UNetConfig
from tinyldm.spelling import nearest

PRESETS = {
    # 16x16 latents, two CPU cores: about half a second for a training step of 64
    "toy": UNetConfig(
        channels=(96, 128, 160),
        attention=("none", "cross", "cross"),
        blocks=1,
        heads=4,
        groups=16,
        scale_shift=True,
        token_dim=128,
    ),
    # 32x32 latents, one consumer GPU
    "small": UNetConfig(
        channels=(128, 256, 384), attention=("none", "cross", "cross"), scale_shift=True
    ),
    # 32x32 latents: the networks of two published solutions of the monster assignment
    "base": UNetConfig(channels=(128, 256, 512, 512)),
    "large": UNetConfig(channels=(256, 384, 512, 768)),
}


def check_preset(name: str) -> None:
    """InputError unless there is a preset of this name."""
    if name not in PRESETS:
        expected = f"expected one of {', '.join(PRESETS)}{nearest(name, PRESETS)}"
        raise InputError(f"--preset {name}: {expected}")
