"""What takes the steps of a training: AdamW, or Muon and AdamW."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tinyldm.processes import ALONE, Processes
from tinyldm.training.muon import Muon, hidden_weights
from tinyldm.training.settings import TrainSettings

MOMENTS: dict[type, tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    Muon: ("momentum",),
}
"""What an optimiser keeps of each of its weights: tensors of its shape, and step, a number."""


def make_optimizers(
    network: nn.Module, settings: TrainSettings, processes: Processes = ALONE
) -> list[torch.optim.Optimizer]:
    """AdamW; with --optimizer muon, Muon for the hidden layers and AdamW for what is left.

    Norms and biases, which are vectors, are not decayed. Each group says by which factor of --lr
    it learns.
    """
    s = settings
    hidden = hidden_weights(network) if s.optimizer == "muon" else []
    taken = set(hidden)
    matrices = [p for p in network.parameters() if p.ndim > 1 and p not in taken]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "lr_factor": 1.0},
        {"params": vectors, "lr_factor": 1.0, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            groups, lr=s.lr, betas=(0.9, 0.99), weight_decay=s.weight_decay, fused=True
        )
    ]
    if hidden:
        group: dict[str, Any] = {"params": hidden, "lr_factor": s.muon_lr / s.lr}
        optimizers.append(
            Muon([group], s.muon_lr, weight_decay=s.weight_decay, processes=processes)
        )
    return optimizers
