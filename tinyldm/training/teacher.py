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
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.files import file_checksum
from tinyldm.methods.consistency import ConsistencyLoss
from tinyldm.training.checkpoint import WEIGHTS, Checkpoint, Config, settings_of, task_of
from tinyldm.training.chosen import check_effect
from tinyldm.training.fresh import OF_THE_NETWORK, Start
from tinyldm.training.network import new_network
from tinyldm.training.settings import TrainSettings
from tinyldm.weights import load_into

WITHOUT = {"perceptual": 0, "perceptual_from": 0, "snr_gamma": 0, "loss_weights": "plain"}
"""Settings of no use to a consistency run, whose loss has weights of its own, and their values."""

OF_THE_TEACHER = {"cfg_drop": 0, "style_drop": 0}
"""And these where it has a teacher: guidance is learned, and the null condition never used."""

LENGTH = 0.24
"""The length of a consistency run in that of the teacher's: half of the compute, as a step of it
is six passes through the network, where one of an ordinary training is three."""


def check_tunable(before: TrainSettings, name: str) -> None:
    """InputError, naming the run: one with these settings cannot be tuned."""
    if before.consistency is not None:
        raise InputError(f"--consistency {name}: is a consistency run already")
    if before.prediction == "eps":
        raise InputError(
            f"--consistency {name}: predicts eps, which says nothing about x0 where a drawing "
            "begins; expected a run of --prediction v, x0 or flow"
        )


def tuned(teacher: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run that tunes a teacher: those of the teacher, with the options given.

    InputError: it cannot be tuned, or an option contradicts it or would be ignored.
    """
    name = given["consistency"]
    before = settings_of(teacher.config)
    check_tunable(before, name)
    task_of(teacher.config).check_options(given)
    for option in ("task", *OF_THE_NETWORK):
        if option in given and given[option] != getattr(before, option):
            raise InputError(
                f"{flag_of(option)} {as_typed(given[option])}: expected "
                f"{as_typed(getattr(before, option))}, as --consistency {name} was trained with"
            )
    taught = given.get("consistency_from", TrainSettings.consistency_from) == "teacher"
    unused: dict[str, Any] = WITHOUT | OF_THE_TEACHER if taught else WITHOUT
    steps = given.get("max_steps", max(1, round(LENGTH * before.max_steps)))
    recipe: dict[str, Any] = {
        **unused,
        "max_steps": steps,
        "lr": before.lr / 2,
        "muon_lr": before.muon_lr / 2,
        "lr_schedule": "cosine",
        "warmup": steps // 20,
        "teacher_guidance": TrainSettings.teacher_guidance if before.cfg_drop else 1.0,
    }
    settings = replace(before, **{**recipe, **given, "consistency": str(teacher.path)})
    check_effect(settings, given)
    for option, value in unused.items():
        if getattr(settings, option) != value:
            settings.refuse(option, f"{value} with --consistency")
    if taught and settings.teacher_guidance != 1 and not before.cfg_drop:
        settings.refuse(
            "teacher_guidance", f"1: {name} was trained with --cfg-drop 0, and can't be guided"
        )
    return settings.to_dict()


@dataclass(frozen=True, eq=False)
class Tuning(Start):
    """A start with the weights of a trained run, which a consistency run tunes.

    teacher: its checkpoint
    """

    teacher: Checkpoint
    complete = True

    def given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return tuned(self.teacher, given)

    def network(
        self, settings: TrainSettings, cache: LatentCache, saved: Config | None
    ) -> tuple[nn.Module, dict[str, Any]]:
        """What is trained, and what a checkpoint says of it: the checksum of the teacher's weights.

        InputError: the run was started from other weights, or the teacher has learned other data,
        or on a schedule that no setting says
        """
        weights = self.teacher.path / WEIGHTS
        facts = {"network": self.teacher.config["network"], "teacher": file_checksum(weights)}
        named = f"--consistency {settings.consistency}"
        if saved is not None and saved["teacher"] != facts["teacher"]:
            raise InputError(f"{named}: its weights are not those that the run was started from")
        s = settings
        schedule = NoiseSchedule(s.schedule, zero_snr=s.zero_snr, shift=s.shift)
        if (schedule, s.prediction) != (self.teacher.schedule, self.teacher.prediction):
            raise InputError(f"{named}: its schedule or prediction is not that of its settings")
        if self.teacher.config.get("data", cache.key) != cache.key:
            raise InputError(
                f"{named}: was trained on other images or captions, or on other copies of them"
            )
        network = new_network(facts["network"], settings.seed)
        load_into(network, self.teacher.network.state_dict(), weights)
        return network, facts

    def objective(self, settings: TrainSettings, device: torch.device) -> ConsistencyLoss:
        frozen = self.teacher
        teacher: Denoiser | None = None
        if settings.consistency_from == "teacher":
            teacher = Guidance(settings.teacher_guidance, frozen.null)(frozen.network.to(device))
        return ConsistencyLoss(frozen.schedule, frozen.prediction, teacher)
