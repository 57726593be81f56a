"""The frozen models of a run: the autoencoder, and what encodes its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tinyldm.autoencoder.pixels import load_vae
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, find_task
from tinyldm.training.checkpoint import conditioning_of


def load_frozen(
    config: Mapping[str, Any], device: torch.device | str, place: str | Path = "the run"
) -> tuple[Any, Encoder]:
    """The autoencoder and the encoder of prompts that a run's config names, on the device.

    InputError: they have the same names as, but are not, those that `place` was trained with.
    """
    vae = load_vae(config["vae"], device)
    facts = conditioning_of(config)
    height, width = config["size"]
    area = (height // vae.factor, width // vae.factor)
    encoder = find_task(facts["task"]).encoder(facts, area, device)
    check_fingerprint(config, "vae", config["vae"], vae.fingerprint, place)
    name = facts.get("name", "labels")
    check_fingerprint(config, "text_encoder", name, encoder.fingerprint, place)
    return vae, encoder


def check_fingerprint(
    config: Mapping[str, Any], kind: str, name: str, fingerprint: str, place: str | Path
) -> None:
    """InputError unless a frozen model is the one that the config tells of, if it does."""
    if config.get(f"{kind}_fingerprint") not in (None, fingerprint):
        kind = kind.removeprefix("text_")  # it may be one of maps or of labels
        raise InputError(
            f"{name}: is not the {kind} that {place} was trained with, or was read otherwise"
        )
