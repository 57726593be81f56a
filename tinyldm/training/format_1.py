"""What checkpoints of format 1 say in words of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tinyldm.nn.config import UNetConfig
from tinyldm.typed import as_type

RETIRED: dict[str, Any] = {
    "time_embedding": "sinusoidal",
    "flip_sin_to_cos": True,
    "freq_shift": 0.0,
    "middle_heads": None,
    "middle_groups": None,
}
"""Settings of a UNet that only tinyldm.compat still has, and what a UNet does."""

PUBLISHED = "tinyldm.compat.network:build"
"""Builds the networks with other values of them; `convert` names it in checkpoints."""

UNSAID = {
    "optimizer": "adamw",
    "t_sampling": "uniform",
    "loss_weights": "plain",
    "post_hoc_ema": False,
}
"""Settings that the first checkpoints do not mention, and what their runs did."""


def read_unet_config(values: Mapping[str, Any]) -> UNetConfig | None:
    """The UNetConfig that the recorded values mean, or None if only compat has such a network."""
    retired = {name: value for name, value in values.items() if name in RETIRED}
    kept = {name: value for name, value in values.items() if name not in RETIRED}
    put_in_heads(retired, kept)
    if retired.get("middle_groups") == kept.get("groups", UNetConfig.groups):
        retired["middle_groups"] = None
    if any(value != RETIRED[name] for name, value in retired.items()):
        return None
    config: UNetConfig = as_type(kept, "network", UNetConfig)
    return config


def read_progress(progress: Any) -> Any:
    """The progress that is recorded; the first checkpoints say Infinity before the first window."""
    if isinstance(progress, dict) and isinstance(progress.get("plateau"), dict):
        plateau = progress["plateau"]
        if plateau.get("best") == math.inf:
            return {**progress, "plateau": {**plateau, "best": None}}
    return progress


def put_in_heads(retired: dict[str, Any], kept: dict[str, Any]) -> None:
    """Let the last level's heads say what middle_heads says, where no other attention has them."""
    heads, attention = kept.get("heads"), kept.get("attention")
    middle_heads = retired.get("middle_heads")
    if not isinstance(heads, list) or not isinstance(attention, list):
        return
    if not middle_heads or not heads or not attention:
        return
    if attention[-1] == "none" or heads[-1] == middle_heads:
        kept["heads"] = [*heads[:-1], middle_heads]
        retired["middle_heads"] = None
