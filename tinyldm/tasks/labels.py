"""The task "labels": a picture shows a set of named objects, as in i-CLEVR."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tinyldm.data.examples import Example, Layout, Prompt, Request
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, Judge, Task
from tinyldm.tasks.prompt_files import checked
from tinyldm.tasks.recipes import FULL, LARGEST_SMALL, SMALL_LABELS
from tinyldm.typed import Limits, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tinyldm.condition import Condition
    from tinyldm.training.settings import TrainSettings

IMAGE_FOLDERS = ("images", "image", "iclevr", "train", ".")  # where the images may lie


@dataclass(frozen=True)
class Labels:
    """A prompt: the names of the objects to show. As text, they are separated by commas."""

    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join(self.names)

    @classmethod
    def of(cls, prompt: Prompt) -> Labels:
        """The labels of a prompt, which may be given as text: "red sphere, cyan cube"."""
        if isinstance(prompt, Labels):
            return prompt
        names = [name.strip() for name in str(prompt).split(",")]
        return cls(tuple(name for name in names if name))


def label_number(name: str, names: Sequence[str], where: str = "") -> int:
    """The place of a name among the known ones; an InputError suggests the closest of them."""
    if name in names:
        return list(names).index(name)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.4) or names[:3]
    raise InputError(
        f"{where}no label {name!r}, expected one of {len(names)}, such as {', '.join(near)}"
    )


class LabelEncoder(Encoder):
    """Turns sets of labels into Conditions, in one of the forms that --label-form names.

    tokens: (b, n, width), a token for each label, in no order, with a mask. It marks the label's
            name and those of its words that other labels share (its shape, its colour). The keys
            and values of an attention to it are linear in the token, so they are embeddings of
            names and words, which each attention learns for itself.
    vector: (b, labels), one where a label is asked for, else zero
    maps:   (b, labels, h, w), the same at every position; area is (h, w)
    """

    def __init__(self, names: Sequence[str], form: str = "tokens", area: tuple[int, int] = (1, 1)):
        self.names = tuple(names)
        self.form = form
        self.area = area
        self.rows = token_rows(self.names)  # (labels, width)
        self.width = self.rows.shape[1]
        content = json.dumps(["labels", self.names])
        self.fingerprint = blake2b(content.encode(), digest_size=8).hexdigest()

    def numbers(self, prompt: Prompt) -> list[int]:
        """The labels of a prompt, in the order of their numbers, each once."""
        return sorted({label_number(name, self.names) for name in Labels.of(prompt).names})

    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """The tokens, which the latent cache keeps whatever the form."""
        import torch

        from tinyldm.condition import Condition

        sets = [self.numbers(prompt) for prompt in prompts]
        longest = max([1, *map(len, sets)])
        tokens = torch.zeros(len(sets), longest, self.width)
        mask = torch.zeros(len(sets), longest, dtype=torch.bool)
        for k, labels in enumerate(sets):
            tokens[k, : len(labels)] = self.rows[labels]
            mask[k, : len(labels)] = True
        return Condition(tokens, mask)

    def finish(
        self, stored: Condition, maps: Tensor | None, generator: torch.Generator | None
    ) -> Condition:
        """Stored tokens in the form asked for."""
        from tinyldm.condition import Condition

        assert stored.tokens is not None
        own = stored.tokens[:, :, : len(self.names)]  # what marks a label's own name
        vector = (own > 0).any(1).float()  # (b, labels)
        if self.form == "maps":
            b, labels = vector.shape
            return Condition(maps=vector[:, :, None, None].expand(b, labels, *self.area))
        with_tokens = "tokens" in self.form
        return Condition(
            tokens=stored.tokens if with_tokens else None,
            mask=stored.mask if with_tokens else None,
            vector=vector if "vector" in self.form else None,
        )

    def words(self, prompt: Prompt) -> list[tuple[str, list[int]]]:
        """The names of its labels, which have a token each."""
        if "tokens" not in self.form:
            return []
        return [(self.names[number], [k]) for k, number in enumerate(self.numbers(prompt))]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError for an unknown name."""
        for prompt in prompts:
            for name in Labels.of(prompt).names:
                label_number(name, self.names, f"prompt {str(prompt)!r}: ")


def token_rows(names: Sequence[str]) -> Tensor:
    """The token of each label, (labels, labels + shared words), with a mean square of 1."""
    import torch

    words = [set(name.split()) for name in names]
    shared = []
    for word in sorted(set().union(*words)):
        if word not in names and sum(word in of_name for of_name in words) > 1:
            shared.append(word)
    marks = torch.tensor([[float(word in of_name) for word in shared] for of_name in words])
    rows = torch.cat([torch.eye(len(names)), marks.view(len(names), len(shared))], dim=1)
    return rows * (rows.shape[1] / rows.sum(1, keepdim=True)).sqrt()


def wanted_labels(prompts: Sequence[Prompt], names: Sequence[str]) -> Tensor:
    """Which labels the prompts ask for: (b, labels) bool."""
    vector = LabelEncoder(names, "vector").encode(prompts).vector
    assert vector is not None
    return vector.bool()


# ---- files


def read_names(folder: Path) -> tuple[str, ...]:
    """The labels of objects.json, name -> number, ordered by number."""
    file = folder / "objects.json"
    known = read_json(file, dict[str, int])
    if not known or sorted(known.values()) != list(range(len(known))):
        last = max(len(known) - 1, 0)
        raise InputError(f"{file}: expected names with the numbers 0 to {last}, each once")
    if any("," in name or name != name.strip() or not name for name in known):
        raise InputError(
            f"{file}: a name is empty, begins or ends with a space, or has a comma in it"
        )
    return tuple(sorted(known, key=known.__getitem__))


def as_labels(value: Sequence[str], names: Sequence[str] | None, where: str) -> Labels:
    """The names in a JSON file as a prompt; checked where the known names are given."""
    if names is None:
        return Labels(tuple(name.strip() for name in value))
    return Labels(tuple(names[label_number(name, names, f"{where}: ")] for name in value))


def read_labelled(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}.json maps names of images to lists of labels; the images lie in an image folder."""
    names = read_names(folder)
    table = folder / f"{split}.json"
    labels = {}
    for name, value in read_json(table, dict[str, list[str]]).items():
        labels[name] = as_labels(value, names, f"{table}: {name}")
    place, there = place_of_images(folder, labels.keys())
    for name in labels:
        if name not in there:
            problems.append(f"{place / name}: no such image, but {table.name} lists it")
    return [Example(place / name, (labels[name],)) for name in sorted(labels) if name in there]


def place_of_images(folder: Path, wanted: Set[str]) -> tuple[Path, set[str]]:
    """The one of the IMAGE_FOLDERS with the most of the wanted names, and the names in it."""
    inside = {}
    for name in IMAGE_FOLDERS:
        if (folder / name).is_dir():
            inside[folder / name] = {path.name for path in (folder / name).iterdir()}
    return max(inside.items(), key=lambda found: len(found[1] & wanted))


def is_labelled(folder: Path) -> bool:
    """Whether a folder has the two files of the assignment."""
    return (folder / "train.json").is_file() and (folder / "objects.json").is_file()


@dataclass(frozen=True)
class LabelFacts:
    """What a checkpoint says of the labels: their names, and the form that the network gets."""

    names: Annotated[list[str], Limits(min_length=1)]
    form: Literal["tokens", "vector", "maps", "tokens+vector"]


class LabelTask(Task):
    """Multi-label scenes: i-CLEVR, or any folder with train.json and objects.json."""

    name = "labels"
    options = frozenset({"label_form"})
    facts = LabelFacts
    layouts = (
        Layout(
            "labels",
            "images with train.json and objects.json (labels, as i-CLEVR)",
            detect=is_labelled,
            read=read_labelled,
            subject=r"CLEVR_\w+?_\d+",  # the pictures of one scene differ by an object
        ),
    )

    def prompt(self, text: str, folder: Path = Path()) -> Labels:
        """The labels that a text lists."""
        return Labels.of(text)

    def requests(self, file: Path) -> list[Request]:
        """A JSON list of lists of labels, drawn as 0.png, 1.png, ...; or a common file of prompts.

        Names are checked against the objects.json beside the file, if there is one.
        """
        if not self.reads(file):
            return super().requests(file)
        entries = read_json(file, list[list[str]])
        known = (file.parent / "objects.json").is_file()
        names = read_names(file.parent) if known else None
        requests = []
        for k, value in enumerate(entries):
            requests.append(Request(f"{k}.png", as_labels(value, names, f"{file}: entry {k}")))
        return checked(requests, file)

    def reads(self, file: Path) -> bool:
        """A .json whose outermost value is a list."""
        return file.suffix == ".json" and isinstance(read_json(file, dict | list), list)

    def size_handed_in(self, file: Path) -> tuple[int, int] | None:
        """64x64 for a list of lists of labels, as i-CLEVR's evaluator wants them."""
        return (64, 64) if self.reads(file) else super().size_handed_in(file)

    def names(self, folder: Path) -> tuple[str, ...]:
        """The labels of objects.json."""
        return read_names(folder)

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """64x64 pixels with the tiny VAE unless more are asked for; nothing is mirrored."""
        recipe = {**FULL, "size": (64, 64)}
        if max(given.get("size", recipe["size"])) <= LARGEST_SMALL:
            recipe.update(SMALL_LABELS)
        return {**recipe, "vae": "tiny", "flip": False, "centre": True}

    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """The names, and the form in which the network gets them."""
        return {"names": list(names), "form": settings.label_form}

    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The labels' encoder."""
        return LabelEncoder(facts["names"], facts["form"], area)

    def judge(self, names: tuple[str, ...]) -> Judge:
        """A small ResNet that reads the labels off a picture."""
        from tinyldm.tasks.judges import label_judge

        return label_judge(names, lambda prompts: wanted_labels(prompts, names))
