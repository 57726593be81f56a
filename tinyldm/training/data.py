"""From a data folder to what the trainer reads: sizes, the latent cache, prompts for the previews."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tinyldm.data.examples import Example, Examples, Prompt
from tinyldm.data.images import Augmentation, load_image
from tinyldm.data.latents import LatentCache, open_or_build
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, Task
from tinyldm.training.settings import TrainSettings

PREVIEWS = 16


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
    vae: Any,
    encoder: Encoder,
    device: torch.device,
    progress: bool = True,
) -> LatentCache:
    """The latent cache that the settings ask for, built first unless it is there."""
    s = settings
    try:
        augmentation = Augmentation(
            flip=s.flip, copies=s.copies, crop=s.crop, jitter=s.jitter, seed=s.seed
        )
    except ValueError as error:
        raise InputError(f"--copies, --crop, --jitter: {error}") from None
    cache = open_or_build(
        examples,
        None if s.vae == "none" else vae,
        encoder,
        s.size,
        augmentation,
        device=device,
        workers=s.workers,
        progress=progress,
        skip_bad=s.skip_bad,
    )
    if s.centre:
        cache.centre()
    return cache


def preview_prompts(task: Task, folder: Path, examples: Examples) -> list[Prompt]:
    """Prompts to watch a training by: of the data's test prompts, else spread over its examples."""
    file = test_prompts(task, folder)
    if file is not None:
        prompts = [request.prompt for request in task.requests(file)]
    else:
        prompts = [example.prompts[0] for example in examples]
    distinct = list(dict.fromkeys(prompts))
    every = max(1, len(distinct) // PREVIEWS)
    return distinct[::every][:PREVIEWS]


def test_prompts(task: Task, folder: Path) -> Path | None:
    """The file of test prompts in a data folder, if it has one."""
    for name in task.prompt_files:
        if (folder / name).is_file():
            return folder / name
    return None
