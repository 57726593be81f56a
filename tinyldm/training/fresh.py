"""What a run starts from: here random weights; start.py and teacher.py have another run.

train.py asks a Start for each thing that follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tinyldm.data.latents import LatentCache
from tinyldm.training.checkpoint import Config
from tinyldm.training.network import DataShape, network_recipe, new_network
from tinyldm.training.settings import TrainSettings
from tinyldm.training.trainer import Objective

OF_THE_NETWORK = (
    "size",
    "preset",
    "network",
    "text_encoder",
    "label_form",
    "image_encoder",
    "vae",
    "centre",
    "prediction",
    "schedule",
    "shift",
    "zero_snr",
)
"""Settings that a run shares with the one that it starts from; another value is refused."""


class Start:
    """A start from random weights.

    complete: whether given() returns all settings, so that no recipe adds to them
    """

    complete = False

    def given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a new run, with those that follow from where it starts."""
        return dict(given)

    def settings(self, settings: TrainSettings, given: Mapping[str, Any]) -> TrainSettings:
        """The settings of a new run. settings: what data and options make of them"""
        return settings

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the frozen models that the run has to have."""
        return {}

    def prepared(self, cache: LatentCache) -> LatentCache:
        """The cache, as the network expects its latents."""
        return cache

    def network(
        self, settings: TrainSettings, cache: LatentCache, saved: Config | None
    ) -> tuple[nn.Module, dict[str, Any]]:
        """What is trained, new with the settings' seed, and what a checkpoint says of it.

        saved: of a run that is resumed, whose network it is to be
        """
        shape = DataShape.of(cache.shape, cache.null)
        recipe = saved["network"] if saved else network_recipe(settings, shape)
        return new_network(recipe, settings.seed), {"network": recipe}

    def objective(self, settings: TrainSettings, device: torch.device) -> Objective | None:
        """The loss of the run, where it is not that of an ordinary training."""
        return None
