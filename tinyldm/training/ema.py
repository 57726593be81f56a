"""Exponential moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class EMA:
    """Keeps `network`, a float32 copy of a module in eval mode whose weights are the average of the module's.

    After update k (from 0) the average moves by 1 - d_k towards the module, d_k = min(decay, (1 + k) / (10 + k)):
    the warm-up keeps the random start from lingering, so that early previews are not noise. warmup=False has d_k = decay.
    Buffers are copied, not averaged. decay=0 is a plain copy.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999, warmup: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected 0 <= decay < 1")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.network = deepcopy(module).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module):
        """Take the module's weights as they are after an optimiser step into the average."""
        decay = (
            min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        )
        averages: list[Tensor] = list(self.network.parameters())
        weights = [
            p.to(a.device, a.dtype) for p, a in zip(module.parameters(), averages, strict=True)
        ]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.network.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
        self.updates += 1

    def state_dict(self) -> dict:
        """The averaged weights by name, and the number of updates that the warm-up needs."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict):
        """Continue from state_dict(); every weight must be there."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])
