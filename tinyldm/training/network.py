"""Which network a run trains, and how a checkpoint says so.

It is a preset of the UNet, or what a function of the user's own builds: any denoiser.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.cli import load_object
from tinyldm.condition import Condition
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.training.format_1 import PUBLISHED, read_unet_config
from tinyldm.training.presets import PRESETS, check_preset
from tinyldm.training.settings import TrainSettings
from tinyldm.typed import Count, Index, Side, as_type


@dataclass(frozen=True)
class DataShape:
    """What a network has to fit: the latents and the parts of their conditions.

    channels:     of the latents, in and out
    size:         (h, w) of the latents
    token_dim:    width of Condition.tokens, None if there are none
    vector_dim:   width of Condition.vector, None if there is none
    map_channels: channels of Condition.maps, 0 if there are none
    """

    channels: Count
    size: tuple[Side, Side]
    token_dim: Count | None = None
    vector_dim: Count | None = None
    map_channels: Index = 0

    @classmethod
    def of(cls, latent_shape: Sequence[int], null: Condition) -> DataShape:
        """The shape of latents (c, h, w) whose null condition is given."""
        channels, height, width = latent_shape
        return cls(
            channels,
            (height, width),
            token_dim=None if null.tokens is None else null.tokens.shape[2],
            vector_dim=None if null.vector is None else null.vector.shape[1],
            map_channels=0 if null.maps is None else null.maps.shape[1],
        )


@dataclass(frozen=True)
class Built:
    """How a checkpoint describes a network that a function builds."""

    build: str
    arguments: dict[str, Any]


def network_recipe(settings: TrainSettings, shape: DataShape) -> dict[str, Any]:
    """How to build the network of a run, as plain values for the checkpoint; see build_network."""
    if settings.network is not None:
        return {"build": settings.network, "arguments": asdict(shape)}
    check_preset(settings.preset)
    return asdict(fitted(PRESETS[settings.preset], shape))


def fitted(config: UNetConfig, shape: DataShape) -> UNetConfig:
    """A UNet's config with its input, output and conditions fitted to the data."""
    attention, middle = config.attention, config.middle
    if shape.token_dim is None:  # there is nothing to cross to
        attention = tuple("self" if kind == "cross" else kind for kind in attention)
        middle = "self" if middle == "cross" else middle
    return replace(
        config,
        in_channels=shape.channels,
        out_channels=shape.channels,
        attention=attention,
        middle=middle,
        token_dim=shape.token_dim,
        vector_dim=shape.vector_dim,
        map_channels=shape.map_channels,
    )


def is_ours(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe is for a UNet of this package, not for a network of the user's own."""
    return recipe.get("build", PUBLISHED) == PUBLISHED


def new_network(recipe: Mapping[str, Any], seed: int) -> nn.Module:
    """The network of a recipe with the random weights that follow from the seed."""
    torch.manual_seed(seed)
    return build_network(recipe)


def build_network(recipe: Mapping[str, Any]) -> nn.Module:
    """The network of a recipe: a UNet from its config, or what the user's own function returns.

    A recipe with "build": "my_module:function" calls that function with the fields of DataShape as
    keyword arguments. Modules of Python itself are refused: a checkpoint may come from anywhere.
    """
    if "build" not in recipe:
        config = read_unet_config(recipe)
        if config is not None:
            return UNet(config)
        recipe = {"build": PUBLISHED, "arguments": dict(recipe)}  # only compat has such a network
    named = as_type(dict(recipe), "network", Built)
    name, arguments = named.build, named.arguments
    root = name.partition(":")[0].partition(".")[0]
    unknown = arguments.keys() - {f.name for f in fields(DataShape)}
    if root in sys.stdlib_module_names or (unknown and name != PUBLISHED):
        raise InputError(f"--network {name}: not a function that builds a network")
    if name != PUBLISHED:
        shape = as_type(arguments, "network.arguments", DataShape)
        arguments = {key: getattr(shape, key) for key in arguments}
    build = load_object(name, "--network")
    try:
        if not callable(build):
            raise TypeError(f"{build!r} is not callable")
        inspect.signature(build).bind(**arguments)
    except (TypeError, ValueError) as error:  # ValueError: a builtin without a signature
        expected = ", ".join(f.name for f in fields(DataShape))
        raise InputError(f"--network {name}: {error}; expected a function of {expected}") from None
    network = build(**arguments)
    if not isinstance(network, nn.Module):
        raise InputError(f"--network {name}: returned no torch module")
    return network


def check_inputs(network: UNet, mean: Tensor, null: Condition, file: Path) -> None:
    """InputError, naming the file, if the network cannot take such latents or such conditions."""
    height, width = null.maps.shape[2:] if null.maps is not None else (8, 8)
    x = torch.empty(1, len(mean), height, width, device="meta")
    try:
        network.check_inputs(x, 0.0, null)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
