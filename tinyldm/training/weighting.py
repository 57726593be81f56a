"""How much each level of noise counts in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tinyldm.errors import InputError
from tinyldm.processes import Processes

BINS = 20
DECAY = 0.98  # of what is known of the errors, in a step
UNSEEN = 1e-6  # of a sample, with an error of 1: what a bin has before its first
LEAST = 1e-12  # of a sample: a bin that is hardly ever drawn is not forgotten, or it would be 0 / 0
KNOWN = "loss_weights.known"  # in the training state of a checkpoint


class EvenWeights:
    """Errors count alike on average, at whatever level of noise.

    A level is one of 20 bins of equal length in t. Its weight is the mean of all errors over the
    mean of its own, both running means over some 50 steps. But for the mean of all errors, which is
    common to all levels, the gradient at a level is that of the logarithm of its error: training
    minimises the mean of log(error) over the t that are drawn, as it does with a fitted uncertainty
    of each level (1705.07115; for levels of noise 2312.02696). How often a level is drawn still
    decides how much it counts in all.

    Without weights, and if x0, v or the velocity is predicted, the error is large where there is
    most noise, and cannot fall there. Another prediction multiplies the error at each t by a
    constant. Between bins that cancels; within a bin the prediction still decides.

    The weights of a step know the errors of all steps before it. So they depend neither on how many
    parts a batch is divided into nor on how many processes share it.
    """

    def __init__(self, timesteps: int, device: torch.device):
        self.timesteps = timesteps
        self.known = torch.full((2, BINS), UNSEEN, device=device)  # samples, sums of errors
        self.fresh = torch.zeros_like(self.known)  # those of this step

    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        """The weights (b,) of errors (b,) at timesteps t (b,), which may lie on another device."""
        place = (t * BINS // self.timesteps).to(error.device, non_blocking=True)
        one_hot = place[:, None] == torch.arange(BINS, device=error.device)  # (b, bins)
        counted = torch.stack([torch.ones_like(error), error.detach()])  # (2, b)
        self.fresh += (counted[:, :, None] * one_hot).sum(1)  # a product @ would be in bfloat16
        samples, errors = self.known
        weights = (errors.sum() / samples.sum()) * samples / errors  # (bins,)
        return weights[place]

    def settle(self, processes: Processes) -> None:
        """At the end of a step: its errors, those of all processes, become known."""
        faded = DECAY * self.known
        kept = torch.where(faded[0] < LEAST, self.known, faded)
        self.known = kept + processes.mean(self.fresh) * processes.world
        self.forget()

    def forget(self) -> None:
        """Of a step that was left out nothing becomes known."""
        self.fresh.zero_()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name."""
        return {KNOWN: self.known}

    def restore(self, state: Mapping[str, Tensor], file: Path) -> None:
        """Go on from what state() was; InputError, naming its file, if it cannot have been it."""
        if not bool((state[KNOWN] > 0).all()):
            raise InputError(f"{file}: {KNOWN}: expected numbers above 0")
        self.known.copy_(state[KNOWN])
