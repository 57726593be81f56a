"""Exponential moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Keeps `network`, a float32 copy of a module in eval mode, whose weights are an average.

    At update k, counted from 0, the average moves by 1 - d_k towards the module, with
    d_k = min(decay, (1 + k) / (10 + k)). This warm-up forgets the random start, so that early
    previews are not noise; warmup=False has d_k = decay. Buffers are copied. decay=0 copies all.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999, warmup: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected 0 <= decay < 1")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.network = deepcopy(module).float().eval().requires_grad_(False)

    def decay_now(self) -> float:
        """The decay of the update that comes next."""
        if not self.warmup:
            return self.decay
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's weights, as they are after an optimiser step, into the average."""
        averages: list[Tensor] = list(self.network.parameters())
        weights = []
        for average, weight in zip(averages, module.parameters(), strict=True):
            weights.append(weight.to(average.device, average.dtype))
        torch._foreach_lerp_(averages, weights, 1 - self.decay_now())
        for average, buffer in zip(self.network.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
        self.updates += 1

    def count_from(self, updates: int) -> None:
        """Go on with an average that has had so many updates, as the warm-up must know."""
        self.updates = updates

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by name, and the number of updates, which the warm-up needs."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from state_dict(); every weight must be there."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])
