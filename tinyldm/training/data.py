"""From a data folder to what the trainer reads: examples, settings, latent cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyldm.data.examples import Example, Examples, Prompt
from tinyldm.data.images import Augmentation, load_image
from tinyldm.data.latents import LatentCache, open_or_build
from tinyldm.errors import InputError, say
from tinyldm.processes import ALONE, Processes
from tinyldm.tasks.base import Task, read_examples
from tinyldm.training.chosen import settings_for
from tinyldm.training.frozen_models import FrozenModels
from tinyldm.training.settings import TrainSettings

PREVIEWS = 16


@dataclass(frozen=True)
class Data:
    """What a run learns from: a folder, the task that it belongs to, its examples."""

    folder: Path
    task: Task
    examples: Examples

    def settings(self, given: Mapping[str, Any], complete: bool = False) -> TrainSettings:
        """The settings of a run. given: the options, or if complete, all settings of it already."""
        if complete:
            return TrainSettings.from_dict(given)
        return settings_for(given, native_size(self.examples), self.task)

    def without_examples(self) -> Data:
        """The same without the list of examples, which may be long, for when there is a cache."""
        return replace(self, examples=replace(self.examples, items=(), held_out=()))

    def name(self, settings: TrainSettings) -> str:
        """What a run without --out is named after."""
        return "toy" if settings.data is None else self.folder.resolve().name

    def facts(self, settings: TrainSettings, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """What a checkpoint says of its data: names of frozen models, size, prompts of previews.

        The prompts name files by paths in the data folder, so that a run and its data can move.
        """
        conditioning = self.task.conditioning(settings, self.examples.names)
        return {
            "vae": settings.vae,
            "text_encoder": settings.text_encoder,
            "size": list(settings.size),
            "data_folder": str(self.folder.resolve()),
            "condition": {"task": settings.task, **conditioning},
            "preview_prompts": [self.task.text(prompt, self.folder) for prompt in prompts],
        }

    def preview_prompts(self) -> list[Prompt]:
        """Prompts for the previews: test prompts if there are any, else those of the examples."""
        file = find_test_prompts(self.task, self.folder)
        if file is not None:
            prompts = [request.prompt for request in self.task.requests(file)]
        else:
            prompts = [example.prompts[0] for example in self.examples]
        return self.task.previewed(prompts, PREVIEWS)


def read_data(folder: Path, given: Mapping[str, Any]) -> Data:
    """The data in a folder, as --task, --skip-bad and --hold-out ask for it."""
    task, examples = read_examples(
        folder,
        skip_bad=given.get("skip_bad", False),
        task=given.get("task"),
        hold_out=given.get("hold_out", 0.0),
    )
    return Data(examples.folder, task, examples)


def find_test_prompts(task: Task, folder: Path) -> Path | None:
    """The file of test prompts in a data folder, if it has one."""
    for name in task.prompt_files:
        if (folder / name).is_file():
            return folder / name
    return None


def native_size(examples: Sequence[Example]) -> tuple[int, int]:
    """(height, width) of the first image that can be read."""
    problems = []
    for example in examples:
        try:
            width, height = load_image(example.image).size
            return height, width
        except InputError as error:
            problems.append(str(error))
    more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
    raise InputError(problems[0] + more)


def open_cache(
    settings: TrainSettings,
    examples: Examples,
    models: FrozenModels,
    processes: Processes = ALONE,
) -> LatentCache:
    """The latent cache that the settings ask for; it is built unless it is there already.

    processes: all of them call this, and each encodes its share
    """
    s = settings
    if processes.is_main:
        say(examples.summary)
    try:
        augmentation = Augmentation(
            flip=s.flip, copies=s.copies, crop=s.crop, jitter=s.jitter, seed=s.seed
        )
    except ValueError as error:
        raise InputError(f"--copies, --crop, --jitter: {error}") from None
    cache = open_or_build(
        examples,
        None if s.vae == "none" else models.vae,
        models.encoder,
        s.size,
        augmentation=augmentation,
        device=processes.device,
        workers=s.workers,
        progress=processes.is_main,
        skip_bad=s.skip_bad,
        verify=processes.is_main,
        processes=processes,
    )
    if s.centre:
        cache.centre()
    return cache
