"""The library's own networks as diffusers' UNets, and back: what `convert` needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import torch
from torch import nn

from tinyldm.compat.network import PublishedConfig, PublishedUNet
from tinyldm.compat.unet import DOWN, SAME, UP, UNet2DConditionModel, UNet2DModel
from tinyldm.nn.config import UNetConfig
from tinyldm.training.format_1 import PUBLISHED, read_unet_config


def from_native(config: UNetConfig, sample_size=None) -> UNet2DConditionModel | UNet2DModel:
    """The UNet of diffusers' that is the network of a config, on the meta device.

    ValueError if there is none.
    """
    c = PublishedConfig(**asdict(config))
    settings = {theirs: getattr(c, ours) for ours, theirs in SAME.items()}
    settings |= {
        "sample_size": sample_size,
        "in_channels": c.in_channels + c.map_channels,
        "down_block_types": tuple(DOWN[kind] for kind in c.attention),
        "up_block_types": tuple(UP[kind] for kind in reversed(c.attention)),
        "resnet_time_scale_shift": "scale_shift" if c.scale_shift else "default",
        "time_embedding_type": "positional" if c.time_embedding == "sinusoidal" else "fourier",
    }
    cls: type[UNet2DConditionModel] | type[UNet2DModel] = UNet2DModel
    settings_of = _without_tokens
    if c.reads_tokens or c.vector_dim or c.middle_blocks == 1 or c.time_embedding == "fourier":
        cls = UNet2DConditionModel
        settings_of = _with_tokens
    settings |= settings_of(c)
    known = cls.known
    with torch.device("meta"):
        made = cls(**{name: value for name, value in settings.items() if name in known})
        wanted = PublishedUNet(c)
    for got, part in zip_longest(_parts(made), _parts(wanted)):
        if got != part:
            raise ValueError(
                f"{cls.__name__} has no such network: "
                f"{part or 'nothing'} would be {got or 'missing'}"
            )
    return made


def network_recipe(unet: UNet2DConditionModel | UNet2DModel) -> dict[str, Any]:
    """How a checkpoint describes this network: by a UNetConfig, or where that can't, by build()."""
    config: Any = unet.config
    with torch.device("meta"):
        expected = PublishedUNet(config.native)
    for got, part in zip_longest(_parts(unet), _parts(expected)):
        if got != part:
            found = " ".join(got or part)
            raise ValueError(f"expected a network that its config describes, but it has {found}")
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config.native)))  # lists, no tuples
    plain = read_unet_config(settings)
    if plain is not None:
        return asdict(plain)
    return {"build": PUBLISHED, "arguments": settings}


def _with_tokens(c: PublishedConfig) -> dict[str, Any]:
    """The settings of c that UNet2DConditionModel has in its own way."""
    dims: list[int | None] = []  # attention_head_dim; None where it does not matter
    for level in c.levels:
        dim = {"self": level.width // level.heads, "cross": level.heads, "none": None}
        dims.append(dim[level.attention])
    if dims[-1] is None and c.middle == "cross":
        dims[-1] = c.middle_heads or c.levels[-1].heads
    middle_of = {0: None, 1: "UNetMidBlock2D"}
    return {
        "attention_head_dim": tuple(
            dim or mirrored or 1 for dim, mirrored in zip(dims, reversed(dims), strict=True)
        ),
        "mid_block_type": middle_of.get(c.middle_blocks, "UNetMidBlock2DCrossAttn"),
        "class_embed_type": "projection" if c.vector_dim else None,
    }


def _without_tokens(c: PublishedConfig) -> dict[str, Any]:
    """The settings of c that UNet2DModel has in its own way."""
    last = c.levels[-1]
    head_width = last.width // (c.middle_heads or last.heads)
    for level in reversed(c.levels):
        if level.attention == "self":
            head_width = level.width // level.heads
    return {
        "layers_per_block": c.levels[0].blocks,
        "add_attention": c.middle == "self",
        "attn_norm_num_groups": c.middle_groups,
        "attention_head_dim": head_width,
        "mid_block_type": "UNetMidBlock2D" if c.middle_blocks else None,
    }


def _parts(network: nn.Module) -> list[tuple[str, ...]]:
    """Each module by name, with all that decides what it computes: attributes and shapes."""
    parts = []
    for name, module in network.named_modules():
        if not name:
            continue
        facts = []
        for key, value in vars(module).items():
            if key != "training" and key[0] != "_" and isinstance(value, (int, float, tuple)):
                facts.append(f"{key}={value}")
        for key, weight in [
            *module.named_parameters(recurse=False),
            *module.named_buffers("", False),
        ]:
            facts.append(f"{key}={tuple(weight.shape)}")
        parts.append((name, type(module).__name__, *facts))
    return parts
