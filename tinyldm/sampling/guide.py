"""The weaker network of autoguidance, --guide: loaded, and compared with the one it guides."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.sampling.settings import Drawing
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import Checkpoint, conditioning_of
from tinyldm.training.network import DataShape


def load_guide(checkpoint: Checkpoint, how: Drawing, device: torch.device) -> Checkpoint | None:
    """The checkpoint of the guide that `how` names, or None.

    InputError: it is not of the same latents, noise and prompts, so that it would see something
    else in x_t. It may predict something else: methods/autoguidance.py converts that.
    """
    if how.guide is None:
        return None
    guide = load_averaged(how.guide, device, how.guide_ema_length)
    check_guide(checkpoint, guide, how.guide)
    return guide


def check_guide(checkpoint: Checkpoint, guide: Checkpoint, named: Path) -> None:
    """InputError, naming the guide and what of it differs, unless it can guide the checkpoint."""
    if guide.config["settings"].get("consistency") is not None:
        raise InputError(
            f"--guide {named}: is a consistency run, which predicts where a drawing ends rather "
            "than a mean; expected an ordinary run"
        )
    ours, theirs = facts_of(checkpoint), facts_of(guide)
    for name, fact in ours.items():
        if theirs[name] != fact:
            told = f": {unlike(theirs[name], fact)}" if name in TELLING else ""
            raise InputError(
                f"--guide {named}: has another {name} than the network that it would guide{told}"
            )
    if not (torch.equal(checkpoint.mean, guide.mean) and torch.equal(checkpoint.std, guide.std)):
        raise InputError(
            f"--guide {named}: normalises latents by another mean and deviation than the network "
            "that it would guide; expected a run on the same data"
        )


TELLING = ("shape of latents and conditions", "task", "schedule")  # the others are fingerprints


def unlike(theirs: Any, ours: Any) -> str:
    """What of a fact differs: those fields of a shape or schedule, or the whole."""
    if not isinstance(ours, DataShape | NoiseSchedule):
        return f"{theirs}, not {ours}"
    differing = []
    known = asdict(theirs)
    for field, value in asdict(ours).items():
        if known[field] != value:
            differing.append(f"{field} {known[field]}, not {value}")
    return "; ".join(differing)


def facts_of(checkpoint: Checkpoint) -> dict[str, object]:
    """What a network and its guide must have in common, by the names that messages use.

    Models are compared by their fingerprints, or by name where an old checkpoint has none.
    """
    config = checkpoint.config
    task = conditioning_of(config)
    encoder = config.get("text_encoder_fingerprint") or task.get("name", "labels")
    return {
        "shape of latents and conditions": DataShape.of(config["latent_shape"], checkpoint.null),
        "vae": config.get("vae_fingerprint") or config["vae"],
        "task": task["task"],
        "encoder": encoder,
        "schedule": checkpoint.schedule,
    }
