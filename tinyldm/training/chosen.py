"""The settings of a new run, as data and options choose them.

An option that would have no effect is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinyldm.cli import as_typed, flag_of
from tinyldm.errors import InputError
from tinyldm.training.presets import check_preset
from tinyldm.training.settings import TrainSettings

if TYPE_CHECKING:
    from tinyldm.tasks.base import Task


def settings_for(given: Mapping[str, Any], native: tuple[int, int], task: Task) -> TrainSettings:
    """The settings of a run: the toy set's defaults, the task's recipe over them, then `given`.

    native: (h, w) of the data's first image. InputError for an option that would be ignored,
    or a preset that there is not.
    """
    task.check_options(given)
    recipe: dict[str, Any] = {}
    if given.get("data") is not None:
        recipe = {**task.recipe(native, given), "task": given.get("task", task.name)}
    chosen = {**recipe, **path_of(given, recipe), **weights_of({**recipe, **given}), **given}
    settings = TrainSettings.from_dict(chosen)
    if settings.network is None:
        check_preset(settings.preset)
    check_effect(settings, given)
    return settings


def path_of(given: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str]:
    """Schedule and prediction, where the options ask for another path than that of the recipe.

    The straight path goes with its velocity, and every other schedule with v.
    """
    usual = recipe.get("schedule", TrainSettings.schedule)
    other = given.get("prediction", "flow") != "flow" or given.get("zero_snr", False)
    schedule = given.get("schedule", "cosine" if other and usual == "flow" else usual)
    if schedule == usual:
        return {}
    return {"schedule": schedule, "prediction": "flow" if schedule == "flow" else "v"}


def weights_of(given: Mapping[str, Any]) -> dict[str, str]:
    """Plain weights of the loss where --snr-gamma is given, which has weights of its own."""
    return {"loss_weights": "plain"} if given.get("snr_gamma") else {}


def check_effect(settings: TrainSettings, given: Mapping[str, Any]) -> None:
    """InputError for an option given that has no effect under these settings."""
    for name in ("lr_decay", "lr_every"):
        if name in given and settings.lr_schedule not in ("step", "plateau"):
            ignored(given, name, "--lr-schedule step or plateau")
    if "muon_lr" in given and settings.optimizer != "muon":
        ignored(given, "muon_lr", "--optimizer muon")
    if "preview_guidance" in given and not settings.cfg_drop:
        ignored(given, "preview_guidance", "--cfg-drop above 0")
    if given.get("network") is not None and "preset" in given:
        ignored(given, "preset", "no --network beside it")
    source = None if settings.consistency is None else settings.consistency_from
    if "consistency_from" in given and source is None:
        ignored(given, "consistency_from", "--consistency RUN with it")
    if "teacher_guidance" in given and source != "teacher":
        ignored(given, "teacher_guidance", "--consistency RUN --consistency-from teacher")


def ignored(given: Mapping[str, Any], name: str, expected: str) -> None:
    """Raise the InputError for an option that would have no effect."""
    raise InputError(
        f"{flag_of(name)} {as_typed(given[name])}: would be ignored, expected {expected}"
    )
