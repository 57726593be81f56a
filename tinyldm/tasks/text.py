"""The task "text": a caption describes a picture. Prompts are plain strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinyldm.data.examples import Example, Layout, Prompt, images_in
from tinyldm.errors import InputError
from tinyldm.files import read_csv, read_text
from tinyldm.tasks.base import Encoder, Task
from tinyldm.tasks.recipes import FULL, LARGEST_SMALL, SMALL
from tinyldm.typed import Limits, parse_json, read_json

if TYPE_CHECKING:
    from tinyldm.condition import Condition
    from tinyldm.frozen.text import TextEncoder, TextEncoderOnDemand
    from tinyldm.training.settings import TrainSettings

# ---- the monsters of the sprite assignment


@dataclass(frozen=True)
class MonsterInfo:
    """What is read of an entry of train_info.json; the action is empty for a portrait."""

    given_description: str | Annotated[list[str], Limits(min_length=1)]
    action_description: str

    @property
    def captions(self) -> tuple[str, ...]:
        """Each description, followed by the action."""
        given = self.given_description
        descriptions = [given] if isinstance(given, str) else given
        return tuple(f"{text} {self.action_description}".strip() for text in descriptions)


def read_monsters(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}/*.png named {key}_{frame}.png, described by {split}_info.json or test.json."""
    info = folder / ("test.json" if split == "test" else f"{split}_info.json")
    monsters = read_json(info, dict[str, MonsterInfo], extra="ignore")
    examples = []
    for image in images_in(folder / split):
        # the last part of a stem counts the frames; test images are named by the key alone
        key = image.stem if split == "test" else image.stem.rpartition("_")[0]
        if key in monsters:
            examples.append(Example(image, monsters[key].captions))
        else:
            problems.append(f"{image}: no key {key!r} in {info.name}")
    return examples


# ---- the animal-object pairs


def read_animals(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}.csv with id,animal,object; the images lie beside it, in {split}/ or in images/."""
    table = folder / f"{split}.csv"
    rows = read_csv(table, "id", "animal", "object")
    place = place_of_images(folder, split, rows)
    examples = []
    for row in rows:
        caption = f"{with_article(row['animal'])} and {with_article(row['object'])}"
        examples.append(Example(place / row["id"], (caption,)))
    return examples


def place_of_images(folder: Path, split: str, rows: Sequence[Mapping[str, str]]) -> Path:
    """The folder that holds the first image of a table, or else the first with any images."""
    places = [folder, folder / split, folder / "images"]
    for place in places:
        if rows and (place / rows[0]["id"]).is_file():
            return place
    for place in places:
        if place.is_dir() and images_in(place):
            return place  # only some are missing: the latent cache will name them
    raise InputError(
        f"{folder}: no images, expected them beside {split}.csv, in {split}/ or in images/"
    )


def with_article(noun: str) -> str:
    """A noun with "a" or "an" before it."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


# ---- any folder of images with captions


def metadata_file(folder: Path) -> Path | None:
    """The metadata.jsonl or metadata.csv of a folder, or None."""
    for name in ("metadata.jsonl", "metadata.csv"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_image_folder(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """Metadata with file_name and text, in the split's subfolder or, to train, in the folder."""
    table = metadata_file(folder / split)
    if table is None and split == "train":
        table = metadata_file(folder)
    if table is None:
        raise InputError(f"{folder / split}: no metadata.jsonl or metadata.csv")
    if table.suffix == ".csv":
        rows = read_csv(table, "file_name", "text")
    else:
        rows = read_json_lines(table)
    return [Example(table.parent / row["file_name"], (row["text"].strip(),)) for row in rows]


@dataclass(frozen=True)
class MetadataLine:
    """What is read of a line of metadata.jsonl."""

    file_name: str
    text: str


def read_json_lines(table: Path) -> list[dict[str, str]]:
    """The rows of a metadata.jsonl: an object with file_name and text in each line."""
    rows = []
    # split("\n") and not splitlines(): a caption may hold U+2028
    for number, line in enumerate(read_text(table).split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{table}: line {number}", MetadataLine, extra="ignore")
        rows.append({"file_name": row.file_name, "text": row.text})
    return rows


# ---- the task


class CaptionEncoder(Encoder):
    """Encodes captions with a frozen text encoder; all its tokens are kept."""

    def __init__(self, text_encoder: TextEncoder | TextEncoderOnDemand):
        self.text_encoder = text_encoder
        self.width = text_encoder.width
        self.fingerprint = text_encoder.fingerprint

    @property
    def former_fingerprint(self) -> str:
        """What the first versions recorded."""
        return self.text_encoder.former_fingerprint

    def get_ready(self) -> None:
        """Load the text encoder."""
        from tinyldm.frozen.known import load_now

        load_now(self.text_encoder)

    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """The last hidden states of the captions."""
        return self.text_encoder.encode([str(prompt) for prompt in prompts])

    def words(self, prompt: Prompt) -> list[tuple[str, list[int]]]:
        """Those of the caption."""
        return self.text_encoder.words(str(prompt))


@dataclass(frozen=True)
class CaptionFacts:
    """What a checkpoint says of the encoder: its name, and `padded` as in TextEncoder."""

    name: str
    padded: bool = False


class TextTask(Task):
    """Pictures with captions: the monsters, the animal-object pairs, any captioned image folder."""

    name = "text"
    options = frozenset({"text_encoder"})
    facts = CaptionFacts
    captions = True
    layouts = (
        Layout(
            "monsters",
            "train/*.png with train_info.json (monsters)",
            detect=lambda folder: (folder / "train_info.json").is_file(),
            read=read_monsters,
            subject="[^_]+",  # the number of the monster
        ),
        Layout(
            "animals",
            "images with train.csv of id,animal,object (animal-object pairs)",
            detect=lambda folder: (folder / "train.csv").is_file(),
            read=read_animals,
        ),
        Layout(
            "image-folder",
            "images with metadata.jsonl or metadata.csv of file_name and text (image folder)",
            detect=lambda folder: bool(metadata_file(folder / "train") or metadata_file(folder)),
            read=read_image_folder,
        ),
    )

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """The full recipe, or the small one where the tiny VAE is asked for on small pictures.

        Square images of less than 256 pixels keep their size.
        """
        recipe = dict(FULL)
        if native[0] == native[1] < FULL["size"][0]:
            recipe["size"] = native
        size = given.get("size", recipe["size"])
        if given.get("vae") == "tiny" and max(size) <= LARGEST_SMALL:
            recipe.update(SMALL)
        return recipe

    def size_handed_in(self, file: Path) -> tuple[int, int] | None:
        """256x256 for the monsters' test.json, 64x64 for the generate.csv of the animals."""
        return {".json": (256, 256), ".csv": (64, 64)}.get(file.suffix)

    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """Which text encoder."""
        return {"name": settings.text_encoder}

    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The captions' encoder."""
        from tinyldm.frozen.text import TextEncoderOnDemand

        padded = facts.get("padded", False)
        return CaptionEncoder(TextEncoderOnDemand(facts["name"], device, padded))
