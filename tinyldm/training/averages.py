"""Averages for post-hoc EMA: kept in training and saved with every checkpoint.

CHECKPOINT/averages.safetensors holds each weight once for each of the lengths kept, as
"0.05/conv_in.weight", in float32. Averages of other lengths add snapshots up with coefficients of
both signs, which would enlarge the rounding of float16 to what the averages differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from tinyldm.methods.power_ema import decay
from tinyldm.training.ema import EMA
from tinyldm.weights import check_fit, load_into, read_weights


class PowerEMA(EMA):
    """An average whose profile is a power function (2312.02696): sigma_rel says over which share of
    the run it reaches, however long that is; see methods/power_ema.py.

    It starts as the weights after the first update.
    """

    def __init__(self, module: nn.Module, sigma_rel: float):
        super().__init__(module, warmup=False)
        self.sigma_rel = sigma_rel

    def decay_now(self) -> float:
        return decay(self.sigma_rel, self.updates + 1)


class PowerEMAs:
    """Averages of several lengths, or of none, side by side."""

    def __init__(self, module: nn.Module, lengths: Sequence[float]):
        self.averages = [PowerEMA(module, sigma_rel) for sigma_rel in lengths]

    @property
    def lengths(self) -> list[float]:
        return [average.sigma_rel for average in self.averages]

    def update(self, module: nn.Module) -> None:
        """Take the module's weights, as they are after an optimiser step, into each average."""
        for average in self.averages:
            average.update(module)

    def state(self) -> dict[str, Tensor]:
        """The weights of all averages, by length and name, as they stand in a file."""
        state = {}
        for average in self.averages:
            for name, weight in average.network.state_dict().items():
                state[stored_name(average.sigma_rel, name)] = weight
        return state

    def restore(self, file: Path, updates: int) -> None:
        """Go on from a file of state(), which was saved after so many updates."""
        if not self.averages:
            return
        stored = read_weights(file)
        check_fit(stored, self.state(), file)
        for average in self.averages:
            names = average.network.state_dict()
            weights = {name: stored[stored_name(average.sigma_rel, name)] for name in names}
            load_into(average.network, weights, file)
            average.count_from(updates)


def stored_name(sigma_rel: float, name: str) -> str:
    """How a weight of the average of a length is called in a file."""
    return f"{sigma_rel:g}/{name}"
