"""What a checkpoint keeps of its data: how latents were normalised, and the null condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.errors import InputError
from tinyldm.typed import Side, as_type
from tinyldm.weights import check_fit, read_weights

LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class LatentShapes:
    """The shapes of what latents.safetensors holds; a Condition need not have all of its parts."""

    mean: tuple[Side, Side, Side]
    std: tuple[Side, Literal[1], Literal[1]]
    tokens: tuple[Literal[1], Side, Side] | None = None
    mask: tuple[Literal[1], Side] | None = None
    vector: tuple[Literal[1], Side] | None = None
    maps: tuple[Literal[1], Side, Side, Side] | None = None


def stored_latents(mean: Tensor, std: Tensor, null: Condition) -> dict[str, Tensor]:
    """What latents.safetensors holds, by name; the inverse of read_latents."""
    stored = {"mean": mean, "std": std}
    for name, part in null.parts().items():
        stored[f"null.{name}"] = part
    return stored


def read_latents(folder: Path, config: Mapping[str, Any]) -> tuple[Tensor, Tensor, Condition]:
    """Mean and deviation of the latents, and the null condition, of a checkpoint.

    InputError, naming the file: tensors are missing, misshapen, or of another dtype.
    """
    file = folder / LATENTS
    tensors = {}
    for name, tensor in read_weights(file).items():
        tensors[name.removeprefix("null.")] = tensor
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    as_type(found, f"{file}: shape", LatentShapes)
    for name, tensor in tensors.items():
        dtype = torch.bool if name == "mask" else torch.float32
        check_fit({name: tensor}, {name: tensor.new_empty(tensor.shape, dtype=dtype)}, file)
    mean, std = tensors.pop("mean"), tensors.pop("std")
    c, *area = config.get("latent_shape", mean.shape)
    if (
        len(std) != c
        or list(mean.shape) not in ([c, 1, 1], [c, *area])
        or not bool((std > 0).all())
    ):
        raise InputError(f"{file}: mean and std are not those of latents of {c} channels")
    try:
        return mean, std, Condition(**tensors)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
