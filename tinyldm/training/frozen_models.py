"""The frozen models of a run: the autoencoder, and what encodes its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyldm.autoencoder.pixels import load_vae
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder
from tinyldm.training.checkpoint import conditioning_of, naming_file, task_of
from tinyldm.typed import as_type


@dataclass(frozen=True)
class FrozenModels:
    """vae: an AutoencoderKL, or Pixels. encoder: turns prompts into conditions."""

    vae: Any
    encoder: Encoder

    @property
    def fingerprints(self) -> dict[str, str]:
        """What a checkpoint records, so that nobody samples from it with other models."""
        return {
            "vae_fingerprint": self.vae.fingerprint,
            "text_encoder_fingerprint": self.encoder.fingerprint,
        }

    def all_loaded(self) -> FrozenModels:
        """The same, for a caller who uses them at once: nothing is left to be loaded later."""
        self.encoder.get_ready()
        return self


def load_frozen(
    config: Mapping[str, Any], device: torch.device | str, place: str | Path = "the run"
) -> FrozenModels:
    """The frozen models that a config names, on the device.

    config: of a checkpoint; or vae, size and condition of a new run
    InputError: they cannot be loaded, which names a checkpoint's config.json; or they are named
    like those that `place` was trained with, but are different.
    """
    with naming_file(config):
        vae = load_vae(config["vae"], device)
    facts = conditioning_of(config)
    height, width = config["size"]
    area = (height // vae.factor, width // vae.factor)
    task = task_of(config)
    as_type(facts, f"{place}: condition", task.facts, extra="ignore")
    with naming_file(config):
        encoder = task.encoder(facts, area, device)
    if tuple(config.get("latent_shape", (0, *area))[1:]) != area:
        raise InputError(
            f"{place}: latent_shape is {config['latent_shape']}, but the vae {config['vae']} makes "
            f"{area} of {width}x{height} pixels"
        )
    recorded_vae = config.get("vae_fingerprint")
    if recorded_vae not in (None, vae.fingerprint):
        raise another("vae", config["vae"], place)
    recorded_encoder = config.get("text_encoder_fingerprint")
    if recorded_encoder is not None and not encoder.answer_to(recorded_encoder):
        raise another("encoder", facts.get("name", "labels"), place)
    return FrozenModels(vae, encoder)


def another(kind: str, name: str, place: str | Path) -> InputError:
    """The error for a frozen model that has the name of a run's, but is another."""
    return InputError(
        f"{name}: is not the {kind} that {place} was trained with: its weights or settings differ"
    )
