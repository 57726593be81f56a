"""Pictures that no file describes: the tasks "classes" and "unconditional".

A subfolder for each class makes its name the label; images alone are learned as they are. Both
need nothing but the pictures. look() finds them; describe_classes() and describe_images() say in
one line what was understood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.data.examples import (
    IMAGE_SUFFIXES,
    Example,
    Layout,
    Prompt,
    images_below,
    images_in,
    is_hidden,
    visible_files,
)
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, Task, no_tokens
from tinyldm.tasks.labels import Labels, LabelTask
from tinyldm.tasks.recipes import FULL, LARGEST_SMALL, SMALL

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tinyldm.condition import Condition
    from tinyldm.training.settings import TrainSettings

SPLITS = {  # what people call the folders of a split
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
TABLES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")  # these may say what images show
OTHER_IMAGES = (".heic", ".heif", ".gif", ".tif", ".tiff", ".avif", ".jfif", ".svg")
SHOWN = 5  # classes that a line lists
SIDE = 64  # pixels a side, where nothing else is asked for
MULTIPLE = 16  # of pixels a side: 4 for the tiny VAE, 4 for the network's two halvings


# ---- what lies in a folder


@dataclass(frozen=True)
class Found:
    """The images of a folder that no file describes.

    root:    where they lie: the folder, its train/, or the only one of its subfolders
    loose:   those in root itself
    folders: those in each of its subfolders and below, by the subfolder's name
    unread:  names of files and folders that are left alone
    """

    root: Path
    loose: tuple[Path, ...]
    folders: Mapping[str, tuple[Path, ...]]
    unread: tuple[str, ...] = ()

    @property
    def images(self) -> list[Path]:
        """All of them, by name."""
        return sorted([*self.loose, *(file for files in self.folders.values() for file in files)])


def look(folder: Path, split: str = "train") -> Found:
    """The images of a split of a folder; of one without splits, all of them.

    Folders that hold nothing but one other are passed through. InputError: there are splits, but
    not this one.
    """
    root, unread = folder, list[str]()
    while True:
        inside = folders_with_images(root)
        by_split = {split_of(name): name for name in inside}
        if inside and None not in by_split:
            if split not in by_split:
                there = ", ".join(f"{name}/" for name in inside)
                raise InputError(f"{root}: has {there} but no {split}/")
            unread += [f"{name}/" for name in inside if name != by_split[split]]
            beside = images_in(root)
            if beside:
                unread.append(f"{len(beside)} images beside them")
            root = root / by_split[split]
        elif len(inside) == 1 and not images_in(root):
            root = root / inside[0]
        else:
            break
    folders = {name: tuple(images_below(root / name)) for name in inside}
    return Found(root, tuple(images_in(root)), folders, (*unread, *other_images(root)))


def folders_with_images(folder: Path) -> list[str]:
    """The names of the visible subfolders that hold an image somewhere, in order."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    return [name for name in sorted(names) if has_images(folder / name)]


def has_images(folder: Path) -> bool:
    """Whether a folder or a folder below it holds an image."""
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in visible_files(folder))


def split_of(name: str) -> str | None:
    """The split that a folder of this name usually holds."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), None)


def other_images(folder: Path) -> list[str]:
    """How many images and captions below a folder are in formats that nobody reads here."""
    kinds = Counter(file.suffix.lower() for file in visible_files(folder))
    return [f"{kinds[kind]} {kind} files" for kind in (*OTHER_IMAGES, ".txt") if kinds[kind]]


def is_bare(folder: Path) -> bool:
    """Whether no table that may say what they show lies beside the images, or on the way there."""
    try:
        place = look(folder).root
    except InputError:
        place = folder
    on_the_way = [place, *(above for above in place.parents if above.is_relative_to(folder))]
    return not any(has_table(each) for each in on_the_way)


def has_table(folder: Path) -> bool:
    """Whether a folder holds a file of metadata, in a format that is known for it."""
    paths = (path for path in folder.iterdir() if not is_hidden(path.name))
    return any(path.suffix.lower() in TABLES for path in paths)


def has_classes(folder: Path) -> bool:
    """Whether a folder has several subfolders of images, or its train/ has."""
    try:
        return len(look(folder).folders) > 1
    except InputError:  # said by whoever reads the images, if anybody does
        return False


# ---- in words


def listed(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def with_unread(line: str, found: Found) -> str:
    """The line, and what is not read beside what it tells."""
    return f"{line}; not read: {', '.join(found.unread)}" if found.unread else line


def describe_classes(folder: Path, examples: Sequence[Example]) -> str:
    """Which classes were found: "pets: reading 2 classes, cats (12), dogs (9), from subfolders"."""
    found = look(folder)
    counts = Counter(str(example.prompts[0]) for example in examples)
    classes = listed([f"{name} ({counts[name]:,})" for name in found.folders])
    line = f"{folder}: reading {len(found.folders)} classes, {classes}, from subfolders"
    if found.root != folder:
        line += f" of {found.root.relative_to(folder)}/"
    return with_unread(line, found)


def describe_images(folder: Path, examples: Sequence[Example]) -> str:
    """How many images were found: "photos: reading 21 images without captions"."""
    found = look(folder)
    line = f"{folder}: reading {len(examples):,} images without captions"
    if found.root != folder:
        line += f", from {found.root.relative_to(folder)}/"
    if found.folders:
        line += f", {sum(map(len, found.folders.values())):,} of them from "
        line += listed([f"{name}/" for name in found.folders])
    return with_unread(line, found)


# ---- classes


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, in order; InputError for one that is no label."""
    names = tuple(look(folder).folders)
    for name in names:
        if "," in name or name != name.strip():
            raise InputError(
                f"{folder / name}: a class is named after its folder, "
                "expected a name without a comma and without a space at its ends"
            )
    return names


def read_classes(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """An example for each image in a class folder or below, labelled with its name."""
    found = look(folder, split)
    if len(found.folders) < 2:
        raise InputError(
            f"{found.root}: expected a subfolder of images for each of 2 or more classes"
        )
    for file in found.loose:
        problems.append(
            f"{file}: lies beside the class folders {listed(list(found.folders))}, expected it in "
            "one of them (--task unconditional reads all images without classes)"
        )
    examples = []
    for name, files in found.folders.items():
        examples += [Example(file, (Labels((name,)),)) for file in files]
    return examples


def small_recipe(native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
    """64x64 pixels, or the size of small square images, under the tiny VAE.

    The size is rounded up to a multiple that VAE and network can halve. Where more pixels are asked
    for, it is the full recipe.
    """
    side = SIDE
    if native[0] == native[1] <= LARGEST_SMALL:
        side = MULTIPLE * ceil(native[0] / MULTIPLE)
    if max(given.get("size", (side, side))) > LARGEST_SMALL:
        return dict(FULL)
    return {**FULL, **SMALL, "size": (side, side), "vae": "tiny"}


class ClassTask(LabelTask):
    """Pictures in a folder for each class, whose name is the label."""

    name = "classes"
    repeats = True
    layouts = (
        Layout(
            "classes",
            "a subfolder of images for each class, with no table beside them",
            detect=lambda folder: is_bare(folder) and has_classes(folder),
            read=read_classes,
            asked=has_images,
            summary=describe_classes,
        ),
    )

    def names(self, folder: Path) -> tuple[str, ...]:
        """The classes."""
        return class_names(folder)

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """The small recipe, unless more than 128 pixels are asked for."""
        return small_recipe(native, given)


# ---- nothing but images


def read_images(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """An example without a prompt for each image in a folder or below."""
    return [Example(file, ("",)) for file in look(folder, split).images]


class NoCondition(Encoder):
    """The encoder of pictures that are asked for by nothing; its Condition has no parts."""

    width = 1
    fingerprint = "no condition"

    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """No tokens."""
        return no_tokens(len(prompts))

    def finish(
        self, stored: Condition, maps: Tensor | None, generator: torch.Generator | None
    ) -> Condition:
        """Nothing."""
        from tinyldm.condition import Condition

        return Condition()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError for a prompt that says something."""
        for prompt in prompts:
            nothing(str(prompt))


def nothing(text: str) -> str:
    """The prompt of a text that says nothing; InputError for any other."""
    if text.strip():
        raise InputError(
            f"prompt {text!r}: the run has learned pictures without captions, expected no prompt; "
            "--count N draws N pictures"
        )
    return ""


@dataclass(frozen=True)
class NoFacts:
    """What a checkpoint says of the encoder: nothing."""


class UnconditionalTask(Task):
    """Pictures alone: the network learns what they look like, and is asked for nothing."""

    name = "unconditional"
    facts = NoFacts
    prompted = False
    repeats = True
    layouts = (
        Layout(
            "unconditional",
            "images alone, with no table beside them (--task unconditional reads any images so)",
            detect=lambda folder: is_bare(folder) and has_images(folder),
            read=read_images,
            asked=has_images,
            summary=describe_images,
        ),
    )
    prompt_files = ()

    def prompt(self, text: str, folder: Path = Path()) -> str:
        """The empty prompt; InputError for a text."""
        return nothing(text)

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """The small recipe, unless more than 128 pixels are asked for; nothing is dropped."""
        return {**small_recipe(native, given), "cfg_drop": 0.0}

    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """Nothing."""
        return {}

    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The encoder of nothing."""
        return NoCondition()

    def check_options(self, given: Mapping[str, Any]) -> None:
        """InputError for an option of another task, or for guidance, which needs a condition."""
        super().check_options(given)
        if given.get("cfg_drop"):
            raise InputError(
                f"--cfg-drop {given['cfg_drop']:g}: there is no condition to drop, expected 0"
            )
