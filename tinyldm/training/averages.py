"""Averages for post-hoc EMA: kept in training, saved with checkpoints, and put together from them.

CHECKPOINT/averages.safetensors holds each weight once for each of the lengths kept, as
"0.05/conv_in.weight", in float32. Averages of other lengths add snapshots up with coefficients of
both signs, which would enlarge the rounding of float16 to what the averages differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tinyldm.errors import InputError
from tinyldm.installation import called
from tinyldm.methods.power_ema import Profile, Synthesis, decay, synthesis
from tinyldm.training.checkpoint import (
    AVERAGES,
    Checkpoint,
    Config,
    check_whole,
    checkpoints,
    load_checkpoint,
    read_config,
)
from tinyldm.training.ema import EMA
from tinyldm.weights import check_fit, load_into, read_weights

WORST = 0.3
"""A profile that is further than this from the one asked for is refused."""


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


# ---- an average of any length, afterwards


def load_averaged(
    path: str | Path,
    device: torch.device | str = "cpu",
    ema_length: float | None = None,
    *,
    base: str | Path | None = None,
    scale: float = 1.0,
) -> Checkpoint:
    """A checkpoint, or the newest of a run, for sampling, as load_checkpoint() reads it.

    ema_length: take the average of this length instead of the one that was saved: it is put
                together from the averages in this checkpoint and in the earlier ones of its run
    InputError: they were not kept, or are too few for this length.
    """
    checkpoint = load_checkpoint(path, device, base=base, scale=scale)
    if ema_length is None:
        return checkpoint
    snapshots = snapshots_of(checkpoint)
    kept = []
    for config, _ in snapshots:
        for sigma_rel in config["ema_lengths"]:
            kept.append(Profile(sigma_rel, config["ema_updates"]))
    wanted = Profile(ema_length, checkpoint.config["ema_updates"])
    coefficients, error = synthesis(kept, wanted)
    if error > WORST:
        raise InputError(
            f"--ema-length {ema_length:g}: the averages of the {len(snapshots)} checkpoints up to "
            f"{checkpoint.path} come no closer to it than {error:.0%}; expected a length nearer to "
            "those kept, or a run with more checkpoints (--save-every)"
        )
    files = put_together(checkpoint.network, snapshots, coefficients)
    return replace(checkpoint, synthesis=Synthesis(ema_length, error, files))


@torch.no_grad()
def put_together(
    network: nn.Module, snapshots: Sequence[tuple[Config, Path]], coefficients: Sequence[float]
) -> dict[str, str]:
    """Give a network the sum of the averages in checkpoints, each times its coefficient.

    Returns which checkpoints have a share in it, with the checksums of their averages.
    """
    learned = dict(network.named_parameters())
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in learned.items()}
    files = {}
    start = 0
    for config, folder in snapshots:
        lengths = config["ema_lengths"]
        shares = coefficients[start : start + len(lengths)]
        start += len(lengths)
        if not any(shares):
            continue
        stored = read_snapshot(folder, config, network)
        for sigma_rel, share in zip(lengths, shares, strict=True):
            for name, weight in total.items():
                weight.add_(stored[stored_name(sigma_rel, name)].double(), alpha=share)
        files[folder.name] = config["checksums"][AVERAGES]
    for name, p in learned.items():
        p.copy_(total[name])
    return files


def snapshots_of(checkpoint: Checkpoint) -> list[tuple[Config, Path]]:
    """The checkpoints of a run with averages, up to this one, which must have some."""
    own = read_config(checkpoint.path)
    if not has_averages(own):
        raise InputError(
            f"--ema-length: {checkpoint.path} holds no averages; expected a run of "
            f"{called('train.py')} --post-hoc-ema"
        )
    found = []
    for folder in checkpoints(checkpoint.path.parent.parent):
        config = read_config(folder)
        if config["step"] < own["step"] and has_averages(config):
            found.append((config, folder))
    return [*found, (own, checkpoint.path)]


def has_averages(config: Config) -> bool:
    """Whether a checkpoint says that it holds averages of its weights."""
    return bool(config.get("ema_lengths")) and config["ema_updates"] > 0


def read_snapshot(folder: Path, config: Config, network: nn.Module) -> dict[str, Tensor]:
    """The averages of a checkpoint, by length and name; InputError: they are not the network's."""
    file = folder / AVERAGES
    expected = {}
    for sigma_rel in config["ema_lengths"]:
        for name, weight in network.state_dict().items():
            expected[stored_name(sigma_rel, name)] = weight
    stored = read_weights(file, expected)
    check_whole(folder, config, AVERAGES)
    return stored
