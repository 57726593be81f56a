"""The learning rate as a function of the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyldm.training.settings import TrainSettings


def learning_rate(step: int, settings: TrainSettings, cuts: int = 0) -> float:
    """The rate of optimiser step `step` (from 0): linear warm-up, then the schedule. cuts: the plateaus met so far."""
    s = settings
    if step < s.warmup:
        return s.lr * (step + 1) / (s.warmup + 1)
    if s.lr_schedule == "cosine":  # to zero just behind the last step (SGDR, 1608.03983, eq. 5)
        progress = (step - s.warmup) / max(1, s.max_steps - s.warmup)
        return s.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if s.lr_schedule == "step":
        cuts = step // s.lr_every
    return s.lr * s.lr_decay**cuts if s.lr_schedule in ("step", "plateau") else s.lr


@dataclass
class Plateau:
    """Counts the windows of lr_every steps whose mean loss is not 1 % below the best one before it."""

    best: float | None = None
    total: float = 0.0
    count: int = 0
    cuts: int = 0

    def observe(self, loss: float, window: int) -> None:
        """Take the loss of one step."""
        self.total, self.count = self.total + loss, self.count + 1
        if self.count == window:
            mean = self.total / self.count
            self.cuts += self.best is not None and mean > 0.99 * self.best
            self.best = mean if self.best is None else min(self.best, mean)
            self.total, self.count = 0.0, 0
