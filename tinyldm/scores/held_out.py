"""What a model is judged by before the test: prompts, and images that training left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from tinyldm.data.examples import Examples, Request
from tinyldm.data.images import load_image, save_image
from tinyldm.errors import InputError
from tinyldm.files import write_text
from tinyldm.scores.metrics import TOYS
from tinyldm.tasks.base import Task, read_requests
from tinyldm.typed import read_json

PROMPTS = "prompts.json"
IMAGES = "held_out"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Validation:
    """Prompts to judge a model by.

    prompts: the pictures to draw
    images:  the real image of each, or none at all
    toys:    of toy monsters, what each of them is to show: the content of attributes.json
    """

    prompts: list[Request]
    images: list[Path]
    toys: dict[str, dict[str, Any]]

    @classmethod
    def of_file(cls, file: Path, count: int | None, task: Task | None = None) -> Validation:
        """Some prompts of a file, evenly spread over it.

        count: how many, None for all; task: whose prompts they are, None: detected from the file
        """
        beside = file.with_name(TOYS)
        toys = read_json(beside, dict[str, dict[str, str | int]]) if beside.is_file() else {}
        return cls(spread(read_requests(file, task), count), [], toys)

    @classmethod
    def of_held_out(cls, examples: Examples, folder: Path, count: int | None) -> Validation:
        """Some of the examples of a data folder that were held out, each by its first prompt."""
        chosen = spread(examples.held_out, count)
        images = [example.image for example in chosen]
        requests = []
        for number, example in enumerate(chosen):
            requests.append(Request(f"{number:05d}.png", example.prompts[0]))
        toys = {}
        if (folder / TOYS).is_file():
            info = read_json(folder / "train_info.json", dict[str, Toy], extra="ignore")
            for request, image in zip(requests, images, strict=True):
                toys[Path(request.name).stem] = toy_attributes(image, info)
        return cls(requests, images, toys)

    def write(self, folder: Path) -> None:
        """Write prompts.json, held_out/NAME, the image of each, and attributes.json of toys."""
        folder.mkdir(parents=True, exist_ok=True)
        self.remove(folder)
        if self.images:
            (folder / IMAGES).mkdir(exist_ok=True)
            requests = tqdm(self.prompts, "images held out", delay=2)
            for request, image in zip(requests, self.images, strict=True):
                save_image(load_image(image), folder / IMAGES / request.name)
        entries = {}
        for request in self.prompts:
            entries[request.name] = {"image_name": request.name, "text_prompt": request.text}
        write_json(folder / PROMPTS, entries)
        if self.toys:
            write_json(folder / TOYS, self.toys)

    def remove(self, folder: Path) -> None:
        """Remove what write() has written, now or in an earlier sweep."""
        for image in (folder / IMAGES).glob("[0-9][0-9][0-9][0-9][0-9].png"):
            image.unlink()
        with suppress(OSError):  # it is not there, or there is more in it
            (folder / IMAGES).rmdir()
        for name in (PROMPTS, TOYS):
            (folder / name).unlink(missing_ok=True)


def spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """At most `count` of the items, evenly spread over them; None: all."""
    if count is None:
        return list(items)
    every = max(1, len(items) // count)
    return list(items[::every][:count])


@dataclass(frozen=True)
class Toy:
    """What is read of an entry of the toy set's train_info.json: "red round horns 2"."""

    original_name: str


def toy_attributes(image: Path, info: dict[str, Toy]) -> dict[str, Any]:
    """What a training image of the toy set shows, as attributes.json would say it.

    info: the content of train_info.json
    """
    key, _, _ = image.stem.rpartition("_")  # 12_jump_3.png: monster, action, frame
    _, _, action = key.partition("_")
    try:
        colour, shape, feature, eyes = info[key].original_name.split()
    except (KeyError, ValueError):
        raise InputError(f"{image}: train_info.json doesn't say what it shows") from None
    return {
        "colour": colour,
        "shape": shape,
        "feature": feature,
        "eyes": int(eyes) if eyes.isdecimal() else eyes,
        "action": action,
    }


def write_json(file: Path, content: Any) -> None:
    """Write a value as JSON."""
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False))
