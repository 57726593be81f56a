"""Schedulers whose steps remember those before: what a step leaves travels with prev_sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from tinyldm.compat.config import Config
from tinyldm.compat.schedulers.base import Scheduler
from tinyldm.diffusion.schedule import Grid


class Left(NamedTuple):
    """What a step of a multistep scheduler leaves for the next one.

    levels:  those of the run it belongs to
    place:   of the next step
    shape:   of the samples
    history: what the solver remembers
    """

    levels: Grid | None = None
    place: int = 0
    shape: torch.Size = torch.Size()
    history: Any = ()


class MultistepScheduler(Scheduler):
    """Its steps resume with what the step that made their sample left.

    So runs may take turns, and a script that changes prev_sample in between goes on with what the
    last step left.
    """

    def set_up(self, given: Config) -> None:
        """The schedule of these settings, and an empty memory."""
        super().set_up(given)
        self._last = Left()  # what the last step of any run left
        self._left = WeakTensorKeyDictionary()  # prev_sample -> what its step left

    def __getstate__(self) -> dict:
        """A copy has other tensors, so only what the last step left goes with it."""
        state = dict(vars(self))
        del state["_left"]
        return state

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._left = WeakTensorKeyDictionary()

    def _resume(self, timestep, sample: Tensor) -> tuple[int, Any]:
        """The position of a step and what the one before left for it."""
        t = torch.as_tensor(timestep, dtype=torch.float32).item()
        for left in (self._left.get(sample, self._last), self._last):
            if left.levels is not self.levels or left.place == len(self.levels) - 1:
                continue  # of another run, or of one that has ended
            same_step = t == float(np.float32(self.levels[left.place].t))
            if same_step and left.shape == sample.shape:
                return left.place, left.history
        return self._index(timestep), ()

    def _leave(self, prev_sample: Tensor, place: int, history: Any) -> None:
        """Keep what the step that made prev_sample leaves for the one at `place`."""
        self._last = self._left[prev_sample] = Left(self.levels, place, prev_sample.shape, history)
