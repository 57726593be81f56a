"""The learning rate as a function of the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tinyldm.training.settings import TrainSettings
from tinyldm.typed import Index, Limits

Loss = Annotated[float, Limits(ge=0)]


def learning_rate(step: int, settings: TrainSettings, cuts: int = 0) -> float:
    """The learning rate of step `step`, counted from 0: a linear rise, then the schedule.

    cuts: how many plateaus there have been so far
    """
    s = settings
    if step < s.warmup:
        return s.lr * (step + 1) / (s.warmup + 1)
    # both of these reach zero just after the last step
    progress = min(1.0, (step - s.warmup) / max(1, s.max_steps - s.warmup))
    if s.lr_schedule == "linear":  # 2310.07831
        return s.lr * (1 - progress)
    if s.lr_schedule == "cosine":  # 1608.03983, eq. 5
        return s.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if s.lr_schedule == "step":
        return float(s.lr * s.lr_decay ** (step // s.lr_every))
    if s.lr_schedule == "plateau":
        return float(s.lr * s.lr_decay**cuts)
    return s.lr


def highest_rate(settings: TrainSettings) -> float:
    """The highest learning rate of a run: at the end of its warm-up, or of the run before that."""
    last = settings.max_steps - 1
    ends = (min(settings.warmup - 1, last), min(settings.warmup, last))
    return max(learning_rate(step, settings) for step in ends if step >= 0)


@dataclass
class Plateau:
    """Counts the windows of steps whose mean loss is not 1 % below the best one before.

    best:  the lowest mean loss of a window so far
    total, count: of the losses in the current window
    cuts:  how many windows brought no improvement
    """

    best: Loss | None = None
    total: Loss = 0.0
    count: Index = 0
    cuts: Index = 0

    def observe(self, loss: float, window: int) -> None:
        """Take in the loss of one step. window: the length of a window in steps."""
        self.total += loss
        self.count += 1
        if self.count < window:
            return
        mean = self.total / self.count
        if self.best is not None and mean > 0.99 * self.best:
            self.cuts += 1
        self.best = mean if self.best is None else min(self.best, mean)
        self.total, self.count = 0.0, 0
