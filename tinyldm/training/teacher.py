"""The trained run that train.py --consistency tunes: what of it is taken over, what it teaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tinyldm.cli import as_typed, flag_of
from tinyldm.data.latents import LatentCache
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.sampler import Denoiser
from tinyldm.errors import InputError
from tinyldm.files import file_checksum
from tinyldm.methods.consistency import ConsistencyLoss
from tinyldm.training.checkpoint import (
    WEIGHTS,
    Checkpoint,
    Config,
    find_checkpoint,
    load_checkpoint,
    read_config,
    settings_of,
    task_of,
)
from tinyldm.training.network import DataShape, network_recipe, new_network
from tinyldm.training.processes import Processes
from tinyldm.training.settings import TrainSettings, check_effect
from tinyldm.weights import load_into

OF_THE_RUN = (
    *("task", "size", "preset", "network", "text_encoder", "label_form", "image_encoder", "vae"),
    *("centre", "prediction", "schedule", "shift", "zero_snr"),
)
"""Settings that a tuned run shares with the one that it starts from."""

WITHOUT = ("perceptual", "perceptual_from", "snr_gamma")
"""Settings that a consistency run has no use for: its loss has weights of its own."""

OF_THE_TEACHER = ("cfg_drop", "style_drop")
"""With a teacher, nor these: its guidance is learned, and the null condition never drawn with."""


CONSISTENCY_STEPS = 0.24
"""The length of a consistency run in that of the teacher's: half of the compute, as a step of it
is six passes through the network, where one of an ordinary training is three."""


def tuned(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run that tunes the run given["consistency"], with the options given.

    InputError: that run cannot be tuned, or an option contradicts it or would be ignored.
    """
    name = given["consistency"]
    folder = find_checkpoint(name)
    config = read_config(folder)
    before = settings_of(config)
    if before.consistency is not None:
        raise InputError(f"--consistency {name}: is a consistency run already")
    if before.prediction == "eps":
        raise InputError(
            f"--consistency {name}: predicts eps, which says nothing about x0 where a drawing "
            "begins; expected a run of --prediction v, x0 or flow"
        )
    task_of(config).check_options(given)
    for option in OF_THE_RUN:
        if option in given and given[option] != getattr(before, option):
            raise InputError(
                f"{flag_of(option)} {as_typed(given[option])}: expected "
                f"{as_typed(getattr(before, option))}, as --consistency {name} was trained with"
            )
    taught = given.get("consistency_from", TrainSettings.consistency_from) == "teacher"
    unused = WITHOUT + OF_THE_TEACHER * taught
    steps = given.get("max_steps", max(1, round(CONSISTENCY_STEPS * before.max_steps)))
    recipe: dict[str, Any] = {
        **dict.fromkeys(unused, 0),
        "max_steps": steps,
        "lr": before.lr / 2,
        "muon_lr": before.muon_lr / 2,
        "lr_schedule": "cosine",
        "warmup": steps // 20,
        "teacher_guidance": TrainSettings.teacher_guidance if before.cfg_drop else 1.0,
    }
    settings = replace(before, **{**recipe, **given, "consistency": str(folder)})
    check_effect(settings, given)
    for option in unused:
        if getattr(settings, option):
            settings.refuse(option, "0 with --consistency")
    if taught and settings.teacher_guidance != 1 and not before.cfg_drop:
        settings.refuse(
            "teacher_guidance", f"1: {name} was trained with --cfg-drop 0, and can't be guided"
        )
    return settings.to_dict()


def start(
    settings: TrainSettings, cache: LatentCache, processes: Processes, saved: Config | None = None
) -> tuple[nn.Module, dict[str, Any], Teacher | None]:
    """The network that a run starts with, how to build it, and the teacher whose weights it has.

    saved: the config of a run that is resumed
    """
    teacher = Teacher.of(settings, saved, cache.key, processes.device)
    known = saved or (teacher and teacher.config)
    shape = DataShape.of(cache.shape, cache.null)
    recipe = known["network"] if known else network_recipe(settings, shape)
    network = new_network(recipe, settings.seed)
    if teacher is not None:
        teacher.give_weights(network)
    return network, recipe, teacher


@dataclass(frozen=True, eq=False)
class Teacher:
    """The checkpoint that a consistency run starts from, and learns from if it is to."""

    checkpoint: Checkpoint

    @classmethod
    def of(
        cls, settings: TrainSettings, saved: Config | None, key: str, device: torch.device
    ) -> Teacher | None:
        """The teacher of a run, None if it has none.

        saved: the config of a run that is resumed
        key:   of the run's latent cache
        InputError: the run was started from other weights, or the teacher has learned other data
        """
        if settings.consistency is None:
            return None
        teacher = cls(load_checkpoint(settings.consistency, device))
        named = f"--consistency {settings.consistency}"
        if saved is not None and saved["teacher"] != teacher.facts["teacher"]:
            raise InputError(f"{named}: its weights are not those that the run was started from")
        if teacher.config.get("data", key) != key:
            raise InputError(
                f"{named}: was trained on other images or captions, or on other copies of them"
            )
        return teacher

    @property
    def config(self) -> dict[str, Any]:
        """The content of its config.json."""
        return self.checkpoint.config

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint of the tuned run says of it: the checksum of its weights."""
        return {"teacher": file_checksum(self.checkpoint.path / WEIGHTS)}

    def give_weights(self, network: nn.Module) -> None:
        """Let a network of the same architecture start with the teacher's weights."""
        load_into(network, self.checkpoint.network.state_dict(), self.checkpoint.path / WEIGHTS)

    def objective(self, settings: TrainSettings) -> ConsistencyLoss:
        """The loss of a consistency run with these settings."""
        frozen = self.checkpoint
        teacher: Denoiser | None = None
        if settings.consistency_from == "teacher":
            teacher = Guidance(settings.teacher_guidance, frozen.null)(frozen.network)
        return ConsistencyLoss(frozen.schedule, frozen.prediction, teacher)
