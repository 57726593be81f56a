"""Runs that adapt another run: what their checkpoints say of it, and how it is found again.

"base":    {"checkpoint": where it was, "weights": checksum of its model.safetensors}
"network": {"base": how to build that network, "lora": {"rank": 4, ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn

from tinyldm.errors import InputError
from tinyldm.files import file_checksum
from tinyldm.installation import called
from tinyldm.methods.adapter import Adapter
from tinyldm.methods.controlnet import ControlNet
from tinyldm.methods.lora import LoRA, adaptable
from tinyldm.nn.unet import UNet
from tinyldm.typed import Count, Limits, as_type
from tinyldm.weights import load_into, sized_by

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class BaseOf:
    """Which checkpoint a run adapts: where it was at the time, and what its weights hash to."""

    checkpoint: str
    weights: str

    @classmethod
    def of(cls, checkpoint: Path) -> BaseOf:
        """What to record of a checkpoint."""
        return cls(str(checkpoint.resolve()), file_checksum(checkpoint / WEIGHTS))

    def find(self, adapted: Path, given: Path | None) -> Path:
        """The checkpoint folder, which has to hold the very weights.

        adapted: the checkpoint that adapts it; runs that have moved together are found
        given:   where --base says that it is; a run or a checkpoint
        """
        recorded = Path(self.checkpoint)
        if given is None:
            run, step = recorded.parent.parent.name, recorded.name
            beside = adapted.resolve().parents[2] / run / "checkpoints" / step
            places = [recorded, beside]
        else:
            places = [given, *sorted(given.glob("checkpoints/step-*"), reverse=True)]
        there = [place for place in places if (place / WEIGHTS).is_file()]
        for place in there:
            if file_checksum(place / WEIGHTS) == self.weights:
                return place
        if given is not None:
            raise InputError(
                f"--base {given}: holds no checkpoint with the weights that "
                f"{adapted} adapts, those of {recorded}"
            )
        problem = "holds other weights by now" if there else "is not there"
        raise InputError(
            f"{adapted}: adapts {recorded}, which {problem}; "
            f"{called('sample.py')} --base RUN says where it is"
        )


@dataclass(frozen=True)
class LoRASpec:
    """The type of LoRA.spec()["lora"]."""

    rank: Count
    alpha: Annotated[float, Limits(gt=0)]
    layers: list[str]


@dataclass(frozen=True)
class ControlSpec:
    """The type of ControlNet.spec()["controlnet"]."""

    map_channels: Count


@dataclass(frozen=True)
class Recipe:
    """The type of the recipe of an adapter: that of its base, and one of the two."""

    base: dict[str, Any]
    lora: LoRASpec | None = None
    controlnet: ControlSpec | None = None

    def __post_init__(self) -> None:
        if (self.lora is None) == (self.controlnet is None):
            raise InputError("expected either lora or controlnet")

    @classmethod
    def read(cls, recipe: Mapping[str, Any], place: str | Path) -> Recipe:
        """The recipe in a checkpoint; InputError names the place, its config.json."""
        found: Recipe = as_type(dict(recipe), f"{place}: network", Recipe)
        return found


def is_adapter(recipe: Mapping[str, Any]) -> bool:
    """Whether the recipe of a network is for an adapter of another network."""
    return "base" in recipe


def build_adapter(base: nn.Module, recipe: Mapping[str, Any], place: str | Path) -> Adapter:
    """The adapter that a recipe describes, on its base, with parameters that are to be loaded.

    place: whose recipe it is, for the InputError where it makes no sense
    """
    found = Recipe.read(recipe, place)
    if found.controlnet is not None:
        return ControlNet(controllable(base, place), found.controlnet.map_channels)
    spec = found.lora
    assert spec is not None
    there = adaptable(base)
    if not spec.layers or any(name not in there for name in spec.layers):
        raise InputError(f"{place}: network.lora.layers: expected layers of the base")
    return LoRA(base, spec.rank, spec.alpha, spec.layers)


def controllable(base: nn.Module, place: str | Path) -> UNet:
    """The network as a UNet of this library, of which alone a ControlNet can be made."""
    if type(base) is not UNet:
        raise InputError(f"{place}: has a network of your own; --controlnet needs the UNet")
    return base


def load_adapter(
    base: nn.Module, recipe: Mapping[str, Any], folder: Path, weights: Mapping[str, Tensor]
) -> Adapter:
    """The adapter in a checkpoint folder, whose weights have been read, on its base."""
    file = folder / WEIGHTS
    with sized_by(file, {**recipe, "base": {}}):
        adapter = build_adapter(base, recipe, folder / "config.json")
    load_into(adapter, weights, file)
    return adapter
