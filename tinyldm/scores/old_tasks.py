"""What scores/ needs of tasks, spelled with the modules of before tinyldm.tasks.base.

This file goes when the tasks are there: find_judge(task, names) becomes
find_task(task).judge(names), read_requests comes from tasks.base, Labels from tasks.labels, Scene
from tasks.landscape, and prompts_of(examples, task) becomes [example.prompts[0] for example in
examples], held_out_of(examples) examples.held_out, leave_out_broken() becomes examples.checked(),
and split() what read_examples(hold_out=...) uses, with Layout.scene for SCENES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyldm.errors import InputError
from tinyldm.tasks.base import Judge, Request


@dataclass(frozen=True)
class Labels:
    """A set of labels."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True)
class Scene:
    """A segmentation map and the image whose style a picture of it is to have."""

    map_file: Path | None
    reference_file: Path | None
    text: str

    def __str__(self) -> str:
        return self.text


def typed(text: str, task: str | None) -> Any:
    """The prompt of a text: for a task, or of the kind that it looks like."""
    from tinyldm.tasks.labels import split_names
    from tinyldm.tasks.landscape import parts

    if task == "labels":
        return Labels(tuple(split_names(text)))
    files = parts(text)
    if task == "landscape" or all(file and file.is_file() for file in files):
        return Scene(*files, text)
    return text


def read_requests(file: str | Path, task: str | None = None) -> list[Request]:
    """The requests in a file of prompts."""
    from tinyldm.tasks.table import read_prompts

    return [Request(prompt.name, typed(prompt.text, task)) for prompt in read_prompts(file)]


def prompts_of(examples, task: str) -> list[Any]:
    """The first prompt of each example."""
    return [typed(example.captions[0], task) for example in examples]


def held_out_of(examples) -> list[Any]:
    """The examples that were held out."""
    return list(examples.held)


def find_judge(task: str, names: tuple[str, ...]) -> Judge | None:
    """The judge of a task."""
    from tinyldm.tasks import labels, landscape
    from tinyldm.tasks.judges import label_judge, map_judge
    from tinyldm.tasks.table import TASKS

    if task not in TASKS:
        raise InputError(f"--task {task}: expected one of {', '.join(TASKS)}")
    if task == "labels":
        return label_judge(names, lambda prompts: labels.truth([str(p) for p in prompts], names))
    if task == "landscape":
        return map_judge(names, landscape.load_map)
    return None


def leave_out_broken(examples) -> None:
    """Take out the examples whose image, or map, cannot be read, and print how many those are."""
    from tqdm import tqdm

    from tinyldm.data.images import load_image
    from tinyldm.tasks.landscape import load_map, parts

    good = []
    problems = list(examples.problems)
    for example in tqdm(examples, "checking images", unit="image", disable=len(examples) < 500):
        try:
            load_image(example.image)
            if examples.task == "landscape":
                load_map(*parts(example.captions[0]))
        except InputError as error:
            problems.append(str(error))
        else:
            good.append(example)
    if problems:
        print(f"left out: {len(problems)} images, first {problems[0]}")
    examples[:] = good


SCENES = {"monsters": "[^_]+", "labels": r"CLEVR_\w+?_\d+"}


def split(names: list[str], layout: str = "", share: float = 0.1) -> torch.Tensor:
    """Which images of a data folder are held out, (n,) bool, evenly spread.

    Images of one scene, or of one monster, are held out together.
    """
    pattern = SCENES.get(layout)
    scenes = []
    for number, name in enumerate(names):
        match = re.match(pattern, name) if pattern else None
        scenes.append(match[0] if match else f"{number:08d}")
    every = max(2, round(1 / share))
    held_out = set(sorted(set(scenes))[::every])
    return torch.tensor([scene in held_out for scene in scenes])
