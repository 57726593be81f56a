"""How much each level of noise counts in the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyldm.processes import Processes

BINS = 20
DECAY = 0.98  # of what is known of the errors, in a step
UNSEEN = 1e-6  # of a sample, with an error of 1: what a bin has before its first
KNOWN = "loss_weights.known"  # in the training state of a checkpoint


class PlainWeights:
    """Each sample counts as much as its error."""

    def __init__(self, timesteps: int, device: torch.device):
        self.timesteps = timesteps

    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        """The weights (b,) of errors (b,) at timesteps t (b,), which may lie on another device."""
        return torch.ones_like(error)

    def settle(self, processes: Processes) -> None:
        """At the end of a step: its errors, those of all processes, become known."""

    def forget(self) -> None:
        """Of a step that was left out nothing becomes known."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what state() was."""


class EvenWeights(PlainWeights):
    """Each level of noise has the same share of the loss, whatever its error.

    A level is one of 20 bins of equal length in t. Its weight is the mean of all errors over the
    mean of its own, both running means over some 50 steps. The gradient at a level is then that of
    the logarithm of its error: training minimises the mean of log(error) over all levels, as it
    does with a fitted uncertainty of each (1705.07115, eq. 7; for noise levels 2312.02696).
    Where there is most noise the error is large and cannot fall, and without weights its gradient
    drowns that of all others. Another prediction multiplies the errors of a level by a constant,
    which cancels: eps, x0, v and flow all have the same weights in terms of x0.

    The weights of a step know the errors of all steps before it. So they depend neither on how many
    parts a batch is divided into nor on how many processes share it.
    """

    def __init__(self, timesteps: int, device: torch.device):
        super().__init__(timesteps, device)
        self.known = torch.full((2, BINS), UNSEEN, device=device)  # samples, sums of errors
        self.fresh = torch.zeros_like(self.known)  # those of this step

    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        place = (t * BINS // self.timesteps).to(error.device, non_blocking=True)
        one_hot = (place[:, None] == torch.arange(BINS, device=error.device)).float()  # (b, bins)
        self.fresh += torch.stack([torch.ones_like(error), error.detach()]) @ one_hot
        samples, errors = self.known
        weights = (errors.sum() / samples.sum()) * samples / errors  # (bins,)
        return one_hot @ weights

    def settle(self, processes: Processes) -> None:
        self.known = DECAY * self.known + processes.mean(self.fresh) * processes.world
        self.forget()

    def forget(self) -> None:
        self.fresh.zero_()

    def state(self) -> dict[str, Tensor]:
        return {KNOWN: self.known}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.known = state[KNOWN].to(self.known.device)


LOSS_WEIGHTS = {"plain": PlainWeights, "even": EvenWeights}
"""Kinds of weights by the names that --loss-weights has for them."""
