"""Prompts, requests and examples, and the layouts that data folders come in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload

from tqdm.auto import tqdm

from tinyldm.errors import InputError, say

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Prompt(Protocol):
    """What a picture shows: a caption (a plain str), a set of labels, or a map with a style.

    Equal prompts ask for the same picture. str(prompt) is what you would type on a command line.
    """

    def __str__(self) -> str: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Request:
    """A picture to draw: its file name, and what it shows."""

    name: str
    prompt: Prompt

    @property
    def text(self) -> str:
        """The prompt as you would type it."""
        return str(self.prompt)


@dataclass(frozen=True)
class Example:
    """A picture to learn from: its file, and its prompts, of which training picks one at random."""

    image: Path
    prompts: tuple[Prompt, ...]

    @property
    def name(self) -> str:
        """The name of the image file, without its folder."""
        return self.image.name


@dataclass(frozen=True)
class Layout:
    """A way in which a data folder may be laid out.

    name:        short, for records and messages
    description: what the folder holds, for the message that lists the known layouts
    detect:      whether a folder is laid out like this
    read:        (folder, split, problems) -> examples; adds a line to problems for each that is
                 left out. Image files are not opened here.
    subject:     a regular expression: images whose names begin with the same match show the same
                 thing and are held out together; None: each image stands for itself
    check:       raises InputError if an example's files are broken, besides the image itself
    asked:       whether a folder that detect() leaves alone is read like this where --task asks for
                 it; None: never. Such a layout has no file that says what the images show.
    summary:     (folder, examples) -> what was understood, in one line; None: how many, and the
                 description
    """

    name: str
    description: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, str, list[str]], list[Example]]
    subject: str | None = None
    check: Callable[[Example], object] | None = None
    asked: Callable[[Path], bool] | None = None
    summary: Callable[[Path, Sequence[Example]], str] | None = None

    def suits(self, folder: Path) -> bool:
        """Whether a folder may be read like this where --task asks for it."""
        return self.detect(folder) or (self.asked is not None and self.asked(folder))


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """The examples of a data folder, in the order of their file names or as listed.

    names:    of the labels or classes that the folder uses, if it has any
    problems: a line for each example that was left out
    held_out: examples that were set apart, to judge a model by
    """

    items: tuple[Example, ...]
    layout: Layout
    folder: Path = Path()
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    held_out: tuple[Example, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.items)

    @property
    def summary(self) -> str:
        """What was understood of the folder, in one line."""
        found = (*self.items, *self.held_out)
        if self.layout.summary is not None:
            return self.layout.summary(self.folder, found)
        return f"{self.folder}: reading {len(found):,} {self.layout.description}"

    def checked(self) -> Examples:
        """The examples whose files can be read. The others join the problems; a line tells."""
        from tinyldm.data.images import load_image

        good, problems = [], list(self.problems)
        for example in tqdm(self, "checking images", unit="image", disable=len(self) < 500):
            try:
                load_image(example.image)
                if self.layout.check is not None:
                    self.layout.check(example)
                good.append(example)
            except InputError as error:
                problems.append(str(error))
        if problems:
            say(f"left out: {len(problems)} images, first {problems[0]}")
        return replace(self, items=tuple(good), problems=tuple(problems))

    def hold_out(self, share: float) -> Examples:
        """The same examples, with about this share of them set apart in held_out, evenly spread.

        Images of one subject stay together, so that what is judged by was never seen in training.
        """
        if not 0 <= share <= 0.5:
            raise InputError(f"--hold-out {share:g}: expected a share from 0 to 0.5")
        if not share:
            return self
        apart = held_out_subjects([example.name for example in self], self.layout.subject, share)
        kept = tuple(e for e, out in zip(self, apart, strict=True) if not out)
        if not kept:
            raise InputError(
                f"--hold-out {share:g}: {self.folder} has {len(self)} images, "
                "too few to leave some out"
            )
        held = tuple(e for e, out in zip(self, apart, strict=True) if out)
        return replace(self, items=kept, held_out=held)


def held_out_subjects(
    names: Sequence[str], subject: str | None = None, share: float = 0.1
) -> list[bool]:
    """Which images to hold out: an even sample of the subjects, and all the images of each."""
    subjects = []
    for k, name in enumerate(names):
        match = re.match(subject, name) if subject else None
        subjects.append(match[0] if match else f"{k:08d}")
    every = max(2, round(1 / share))
    held = set(sorted(set(subjects))[::every])
    return [each in held for each in subjects]


def read_layout(
    folder: Path,
    layouts: Sequence[Layout],
    split: str,
    skip_bad: bool,
    asked: Sequence[Layout] = (),
) -> Examples:
    """The examples of a folder that has one of these layouts.

    asked: those of the task that was asked for, which are tried first
    InputError: no such folder, an unknown layout, a caption file that cannot be read or lacks
    something, no images; an image without captions, unless skip_bad leaves it out.
    """
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}, expected one with images")
    layout = next((each for each in asked if each.suits(folder)), None)
    layout = layout or next((each for each in layouts if each.detect(folder)), None)
    if layout is None:
        known = "; or ".join(each.description for each in layouts)
        raise InputError(f"{folder}: not a known layout, expected {known}")
    problems: list[str] = []
    examples = layout.read(folder, split, problems)
    if problems and not skip_bad:
        more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    if not examples:
        raise InputError(f"{folder}: no images, expected {layout.description}")
    return Examples(tuple(examples), layout, folder, problems=tuple(problems))


def check_names(requests: Sequence[Request], where: str | Path) -> None:
    """InputError unless each name is an image's, occurs once, and stays in the output folder.

    On every system: names that differ in case alone count as equal, as they are to some of them.
    """
    seen = set()
    for request in requests:
        name = request.name
        try:
            size = len(name.encode())
            request.text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {name!r}, {request.text!r}: not Unicode text ({error.reason})"
            ) from None
        stays_inside = not set(name) & set("/\\:\0") and not name.startswith(".")
        is_image = Path(name).suffix.lower() in IMAGE_SUFFIXES
        if not stays_inside or not is_image or size > 200:
            raise InputError(
                f"{where}: the name {name!r} is refused, "
                "expected a plain image file name such as 0_main.png"
            )
        if name.casefold() in seen:
            raise InputError(f"{where}: the name {name!r} comes twice")
        seen.add(name.casefold())


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's own: hidden, or left by an archive."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")


def visible_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, but for hidden ones; links to folders aren't followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(place, name) for name in sorted(names) if not is_hidden(name))


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and in its subfolders, by name, without hidden ones."""
    return sorted(f for f in visible_files(folder) if f.suffix.lower() in IMAGE_SUFFIXES)


def images_of(folder: Path) -> list[Path]:
    """The image files in a folder; in its subfolders, such as classes, where it has none itself."""
    return images_in(folder) or images_below(folder)


def images_in(folder: Path) -> list[Path]:
    """The image files in a folder, sorted by name, without hidden files."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with images")
    files = (path for path in folder.iterdir() if not is_hidden(path.name))
    images = (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(images, key=lambda path: path.name)  # paths compare slowly
