"""Task labels: a picture shows a set of objects that have names. In texts the names stand side by side, with commas."""

from __future__ import annotations

import json
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.data.examples import Example, Format, Prompt
from tinyldm.errors import InputError
from tinyldm.files import read_json

FORMS = ("tokens", "vector", "maps", "tokens+vector")
FOLDERS = ("images", "image", "iclevr", "train", ".")  # where the images may lie


def split_names(text: str) -> list[str]:
    """The names in a text, "red sphere, cyan cube"; an empty text has none."""
    return [name.strip() for name in text.split(",") if name.strip()]


def number(name: str, names: tuple[str, ...], where: str = "") -> int:
    """The place of a name among the known ones; InputError tells the nearest of them."""
    if name in names:
        return names.index(name)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.4) or names[:3]
    raise InputError(
        f"{where}no label {name!r}, expected one of {len(names)}, such as {', '.join(near)}"
    )


class LabelEncoder:
    """Sets of labels -> Condition, in one of FORMS.

    tokens: (b, n, width) a token for each label, in no order, with a mask. It marks the label's name and those of its
            words that other labels share (its shape, its colour); so the keys and values of an attention to it, linear
            in the token, are embeddings of names and words, learned by each attention for itself.
    vector: (b, labels) what is there, one or zero each
    maps:   (b, labels, h, w) the same at every position; area is (h, w)
    """

    def __init__(self, names, form: str = "tokens", area: tuple[int, int] = (1, 1)):
        self.names, self.form, self.area = tuple(names), form, tuple(area)
        words = [set(name.split()) for name in self.names]
        shared = sorted(
            w
            for w in set().union(*words)
            if sum(w in of for of in words) > 1 and w not in self.names
        )
        own, marks = (
            torch.eye(len(self.names)),
            torch.tensor([[w in of for w in shared] for of in words]).float(),
        )
        rows = torch.cat([own, marks.view(len(own), len(shared))], 1)
        self.width = rows.shape[1]
        self.rows = (
            rows * (self.width / rows.sum(1, keepdim=True)).sqrt()
        )  # mean square 1, as a text encoder's tokens
        self.fingerprint = blake2b(
            json.dumps(["labels", self.names]).encode(), digest_size=8
        ).hexdigest()

    def numbers(self, text: str) -> list[int]:
        """The labels of a text, in order of their numbers, each once."""
        return sorted({number(name, self.names) for name in split_names(text)})

    def stored(self, texts: list[str]) -> Condition:
        """The tokens, which the latent cache keeps whatever the form."""
        sets = [self.numbers(text) for text in texts]
        n = max([1, *map(len, sets)])
        tokens, mask = (
            torch.zeros(len(texts), n, self.width),
            torch.zeros(len(texts), n, dtype=torch.bool),
        )
        for k, labels in enumerate(sets):
            tokens[k, : len(labels)], mask[k, : len(labels)] = self.rows[labels], True
        return Condition(tokens, mask)

    def finish(self, stored: Condition, rows=None, generator=None) -> Condition:
        """Stored tokens in the form asked for."""
        vector = (stored.tokens[:, :, : len(self.names)] > 0).any(1).float()  # (b, labels)
        if self.form == "maps":
            return Condition(maps=vector[:, :, None, None].expand(*vector.shape, *self.area))
        tokens = (stored.tokens, stored.mask) if "tokens" in self.form else (None, None)
        return Condition(*tokens, vector if "vector" in self.form else None)

    def check(self, texts: list[str]) -> None:
        """InputError: an unknown name."""
        for text in texts:
            self.numbers(text)

    def encode(self, texts: list[str]) -> Condition:
        """Texts in the form asked for; InputError: an unknown name."""
        return self.finish(self.stored(texts))


def truth(texts: list[str], names: tuple[str, ...]) -> Tensor:
    """Which labels the texts name: (b, labels) bool."""
    return LabelEncoder(names, "vector").encode(texts).vector.bool()


def read_names(folder: Path) -> tuple[str, ...]:
    """The labels of objects.json, name -> number, ordered by number."""
    file = folder / "objects.json"
    known = read_json(file, dict)
    if not known or sorted(known.values(), key=str) != sorted(range(len(known)), key=str):
        raise InputError(
            f"{file}: expected names with the numbers 0 to {max(len(known) - 1, 0)}, each once"
        )
    if any("," in name or name != name.strip() or not name for name in known):
        raise InputError(f"{file}: a name that is empty, ends in a space or has a comma in it")
    return tuple(sorted(known, key=known.get))


def joined(labels, names: tuple[str, ...] | None, where: str) -> str:
    """A list of names as a text; they are checked where the known ones are given."""
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{where}: expected a list of label names, got {json.dumps(labels)[:60]}")
    return ", ".join(
        names[number(name, names, f"{where}: ")] if names else name.strip() for name in labels
    )


def read_examples(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}.json maps image names to lists of labels; images lie in one of FOLDERS."""
    names, table = read_names(folder), folder / f"{split}.json"
    captions = {
        name: joined(labels, names, f"{table}: {name}")
        for name, labels in read_json(table, dict).items()
    }
    held = {
        place: {p.name for p in (folder / place).iterdir()}
        for place in FOLDERS
        if (folder / place).is_dir()
    }
    place = max(held, key=lambda p: len(held[p] & captions.keys()))
    absent = [name for name in captions if name not in held[place]]
    problems += [
        f"{folder / place / name}: no such image, but {table.name} names it" for name in absent
    ]
    return [
        Example(folder / place / n, (text,))
        for n, text in sorted(captions.items())
        if n in held[place]
    ]


def read_prompts(file: Path) -> list[Prompt]:
    """A list of lists of labels, drawn as 0.png, 1.png, ...; they are those of the objects.json beside it, if one is."""
    entries, names = (
        read_json(file, list),
        read_names(file.parent) if (file.parent / "objects.json").is_file() else None,
    )
    return [
        Prompt(f"{k}.png", joined(labels, names, f"{file}: entry {k}"))
        for k, labels in enumerate(entries)
    ]


FORMAT = Format(
    "images with train.json and objects.json (labels, as i-CLEVR)",
    lambda folder: all((folder / name).is_file() for name in ("train.json", "objects.json")),
    read_examples,
)
