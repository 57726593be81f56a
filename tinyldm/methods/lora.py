"""LoRA: low-rank changes of a frozen network's weights (2106.09685).

    W' = W + (alpha / r) B A        (section 4.1)

W (out, in) is frozen; A (r, in) and B (out, r) are learned, and alpha, which has nothing to do with
the schedule's, is a number. B is zero at the start, so that the network is at first the one it was.
For a convolution of k x k, A is one of k x k to r channels and B one of 1 x 1 from there, as in the
published implementations; as matrices (out, in k k) they obey the same formula.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tinyldm.condition import Condition
from tinyldm.errors import InputError
from tinyldm.methods.adapter import Adapter
from tinyldm.nn.blocks import zero

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
WORDS = {"attention": r"(^|\.)to_(q|k|v|out\.0)$", "all": ""}
"""What --lora-layers calls a regular expression by."""


def adaptable(network: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolution layers of a network, by name."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, LAYERS)}


def find_layers(network: nn.Module, asked: str) -> list[str]:
    """The names of the layers that a regular expression, or one of WORDS, finds.

    InputError: it is none, or finds nothing; then the line names what there is.
    """
    try:
        pattern = re.compile(WORDS.get(asked, asked))
    except re.error as error:
        raise InputError(f"--lora-layers {asked}: not a regular expression ({error})") from None
    there = adaptable(network)
    found = [name for name in there if pattern.search(name)]
    if not found:
        kinds = dict.fromkeys(re.sub(r"\d+", "*", name) for name in there)
        last = dict.fromkeys(".".join(kind.split(".")[-2:]) for kind in kinds)
        raise InputError(
            f"--lora-layers {asked}: no layer has such a name; there are {', '.join(last)}"
        )
    return found


class Factors(nn.Module):
    """A and B of one linear or convolution layer, as layers that could run one after the other.

    Their weights alone are used; they are layers so that optimisers tell them from embeddings.
    """

    def __init__(self, layer: Any, rank: int):
        super().__init__()
        out, width_in, *kernel = layer.weight.shape
        kind: Any = next(kind for kind in LAYERS if isinstance(layer, kind))
        # a convolution is told the size of its kernel, a linear layer has none
        size_a = [tuple(kernel)] if kernel else []
        size_b = [1] if kernel else []
        self.lora_A = kind(width_in, rank, *size_a, bias=False)
        self.lora_B = zero(kind(rank, out, *size_b, bias=False))

    def product(self) -> Tensor:
        """B A as a matrix (out, in x kernel), in the precision of the factors."""
        a, b = self.lora_A.weight, self.lora_B.weight
        with torch.autocast(a.device.type, enabled=False):
            return b.flatten(1) @ a.flatten(1)


class LoRA(Adapter):
    """Learns factors of some layers of a frozen network, which is any denoiser.

    rank:   r, of every factor
    alpha:  the factor of the change, divided by r; None is r
    layers: names of linear or convolution layers, as find_layers() returns them

    Every call computes the changed weights and runs the base with them. So merged() is exactly the
    network that was trained, and any way in which a network uses its weights will do. The
    parameters are called as in published files: unet.LAYER.lora_A.weight and lora_B.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float | None, layers: list[str]):
        super().__init__(base)
        self.rank = rank
        self.alpha = float(rank if alpha is None else alpha)
        self.layers = list(layers)
        self.merged = False
        self.unet = nn.Module()
        for name in self.layers:
            *path, last = name.split(".")
            place = self.unet
            for part in path:
                if part not in dict(place.named_children()):
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            place.add_module(last, Factors(base.get_submodule(name), rank))

    def spec(self) -> dict[str, Any]:
        """Rank, alpha and layers."""
        return {"lora": {"rank": self.rank, "alpha": self.alpha, "layers": self.layers}}

    def weights(self, scale: float = 1.0) -> dict[str, Tensor]:
        """W + scale (alpha / r) B A of each layer, by the name of the weight in the base.

        ValueError after merge(): the base has them already.
        """
        if self.merged:
            raise ValueError("the factors are merged into the base already")
        changed = {}
        for name in self.layers:
            weight = self.base.get_parameter(f"{name}.weight")
            factors: Any = self.unet.get_submodule(name)
            change = scale * self.alpha / self.rank * factors.product()
            changed[f"{name}.weight"] = weight + change.view_as(weight)
        return changed

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """What the changed network predicts, (b, ...) like x_t."""
        predicted: Tensor = functional_call(self.base, self.weights(), (x_t, t, condition))
        return predicted

    @torch.no_grad()
    def merge(self, scale: float = 1.0) -> nn.Module:
        """The base itself, its weights changed for good: an ordinary network.

        scale: of the change; 0 leaves the base as it is
        """
        for name, weight in self.weights(scale).items():
            self.base.get_parameter(name).copy_(weight)
        self.merged = True
        return self.base

    ready = merge


def published(weights: Mapping[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """LoRA's state_dict as diffusers and peft read it, for whom alpha is r: B takes alpha / r."""
    ratio = alpha / rank
    return {name: w * ratio if "lora_B" in name else w for name, w in weights.items()}
