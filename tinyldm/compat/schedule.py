"""The settings of diffusers' schedulers as a NoiseSchedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tinyldm.compat.config import Config
from tinyldm.diffusion.schedule import NoiseSchedule

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


@dataclass(frozen=True)
class TableSchedule(NoiseSchedule):
    """A noise schedule from a table of betas."""

    table: tuple[float, ...] = ()

    @cached_property
    def betas(self) -> Tensor:
        return torch.tensor(self.table, dtype=torch.float64)


def schedule_of(config: Config) -> NoiseSchedule:
    """The noise schedule that a scheduler's settings describe."""
    zero_snr = config.get("rescale_betas_zero_snr", False)
    if config.trained_betas is not None:
        table = tuple(np.asarray(config.trained_betas, dtype=np.float64).tolist())
        return TableSchedule(timesteps=len(table), zero_snr=zero_snr, table=table)
    kind = KINDS[config.beta_schedule]
    linear = kind != "cosine"
    return NoiseSchedule(
        kind,
        config.num_train_timesteps,
        beta_start=config.beta_start if linear else None,
        beta_end=config.beta_end if linear else None,
        zero_snr=zero_snr,
    )
