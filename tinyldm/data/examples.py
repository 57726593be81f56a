"""Files on disk -> examples to train on and prompts to draw: the layouts of the assignments, told by their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyldm.errors import InputError
from tinyldm.files import _parse, _read, read_csv, read_json

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Example:
    """An image file and the captions that describe it; training takes one of them at random."""

    image: Path
    captions: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.image.name


@dataclass(frozen=True)
class Prompt:
    """The file name to draw under, and the caption."""

    name: str
    text: str


@dataclass(frozen=True)
class Format:
    """A layout that read_examples knows: what it looks like, how it is told from the others and how it is read."""

    layout: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, str, list[str]], list[Example]]  # (folder, split, problems) -> examples


class Examples(list):
    """A list of Example; problems tells, a line each, what skip_bad left out; format the layout; held is a split apart."""

    def __init__(self, examples, problems=(), format: str = ""):
        super().__init__(examples)
        self.problems, self.format, self.held = tuple(problems), format, []


def read_examples(
    folder: str | Path, split: str = "train", skip_bad: bool = False, formats=None
) -> Examples:
    """The captioned images of a folder, its format (one of FORMATS) told by its files, ordered by file name or as listed.

    Image files are not opened here: a missing or broken one is found when the latent cache is built.
    InputError: no such folder, an unknown layout, a caption file that can't be read or misses something, no images;
    an image without captions, unless skip_bad leaves it out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}, expected one with images")
    formats = FORMATS if formats is None else formats
    name = next((name for name, f in formats.items() if f.detect(folder)), None)
    if name is None:
        layouts = "; or ".join(f.layout for f in formats.values())
        raise InputError(f"{folder}: not a known layout, expected {layouts}")
    known, problems = formats[name], []
    examples = known.read(folder, split, problems)
    if problems and not skip_bad:
        raise InputError(
            problems[0] + (f" (and {len(problems) - 1} more such)" if problems[1:] else "")
        )
    if not examples:
        raise InputError(f"{folder}: no images, expected {known.layout}")
    return Examples(examples, problems, name)


def read_prompts(file: str | Path, kinds=None) -> list[Prompt]:
    """The prompts of a file in its order: .txt (one a line, drawn as 0000.png, ...), test.json or generate.csv.

    kinds: suffix -> function, instead of PROMPT_FILES.
    InputError: no such file, an unknown kind, missing keys, no prompts, or names that check_prompts refuses.
    """
    file, kinds = Path(file), PROMPT_FILES if kinds is None else kinds
    if file.suffix not in kinds:
        raise InputError(f"{file}: expected a file of prompts that ends in {', '.join(kinds)}")
    prompts = kinds[file.suffix](file)
    if not prompts:
        raise InputError(f"{file}: no prompts")
    check_prompts(prompts, file)
    return prompts


def check_prompts(prompts: list[Prompt], where: str | Path) -> None:
    """InputError unless every name is an image's, once there, and stays in the output folder, on any system."""
    seen = set()
    for name, text in ((prompt.name, prompt.text) for prompt in prompts):
        try:
            size, _ = len(name.encode()), text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {name!r}, {text!r}: not Unicode text ({error.reason})"
            ) from None
        plain = not set(name) & set("/\\:\0") and not name.startswith(".") and size <= 200
        if not plain or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(
                f"{where}: the name {name!r} is refused, expected a plain image file name such as 0_main.png"
            )
        if name.casefold() in seen:
            raise InputError(f"{where}: the name {name!r} comes twice")
        seen.add(name.casefold())


# ---- training layouts


def _read_monsters(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}/*.png named {key}_{frame}.png; {split}_info.json, or test.json, maps keys to descriptions and action."""
    info = folder / ("test.json" if split == "test" else f"{split}_info.json")
    captions = {
        key: _monster_captions(info, key, entry) for key, entry in read_json(info, dict).items()
    }
    examples = []
    for image in _images(folder / split):
        # the key is the stem without its last part, which counts the frames; test images are named by the key alone
        key = image.stem if split == "test" else image.stem.rpartition("_")[0]
        if key in captions:
            examples.append(Example(image, captions[key]))
        else:
            problems.append(f"{image}: no key {key!r} in {info.name}")
    return examples


def _monster_captions(info: Path, key: str, entry: dict) -> tuple[str, ...]:
    """Each description followed by the action, which is empty for a portrait."""
    descriptions, action = _values(info, key, entry, "given_description", "action_description")
    descriptions = [descriptions] if isinstance(descriptions, str) else descriptions
    if (
        not isinstance(descriptions, list)
        or not descriptions
        or not all(isinstance(d, str) for d in descriptions)
    ):
        raise InputError(
            f"{info}: {key}: 'given_description' is {descriptions!r}, expected a list of strings"
        )
    action = _text(info, key, "action_description", action)
    return tuple(f"{description} {action}".strip() for description in descriptions)


def _read_animals(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}.csv with id,animal,object; the images lie beside it, or in {split}/ or images/."""
    table = folder / f"{split}.csv"
    rows = read_csv(table, "id", "animal", "object")
    places = [folder, folder / split, folder / "images"]
    place = next((p for p in places if rows and (p / rows[0]["id"]).is_file()), None)
    if place is None:
        held = [p for p in places if p.is_dir() and _images(p)]
        if not held:
            raise InputError(
                f"{folder}: no images, expected them beside {table.name}, in {split}/ or in images/"
            )
        place = held[0]  # the first image alone is missing: the cache will name it
    return [
        Example(place / row["id"], (f"{_article(row['animal'])} and {_article(row['object'])}",))
        for row in rows
    ]


def _read_image_folder(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """metadata.jsonl or metadata.csv with file_name and text; in the folder itself or in the subfolder of the split."""
    table = _metadata(folder / split) or (_metadata(folder) if split == "train" else None)
    if table is None:
        raise InputError(f"{folder / split}: no metadata.jsonl or metadata.csv")
    if table.suffix == ".csv":
        rows = read_csv(table, "file_name", "text")
    else:
        rows = []
        for number, line in enumerate(
            _read(table).split("\n"), 1
        ):  # not splitlines(): U+2028 may stand in a caption
            if line.strip():
                row = _parse(line, f"{table}: line {number}", dict)
                _values(table, f"line {number}", row, "file_name", "text")
                rows.append(
                    {
                        name: _text(table, f"line {number}", name, row[name])
                        for name in ("file_name", "text")
                    }
                )
    return [Example(table.parent / row["file_name"], (row["text"].strip(),)) for row in rows]


def _metadata(folder: Path) -> Path | None:
    return next(
        (p for p in (folder / "metadata.jsonl", folder / "metadata.csv") if p.is_file()), None
    )


FORMATS = {
    "monsters": Format(
        "train/*.png with train_info.json (monsters)",
        lambda folder: (folder / "train_info.json").is_file(),
        _read_monsters,
    ),
    "animals": Format(
        "images with train.csv of id,animal,object (animal-object pairs)",
        lambda folder: (folder / "train.csv").is_file(),
        _read_animals,
    ),
    "image-folder": Format(
        "images with metadata.jsonl or metadata.csv of file_name and text (image folder)",
        lambda folder: (_metadata(folder / "train") or _metadata(folder)) is not None,
        _read_image_folder,
    ),
}


# ---- files of prompts


def _prompts_txt(file: Path) -> list[Prompt]:
    lines = [line.strip() for line in _read(file).split("\n")]
    return [Prompt(f"{k:04d}.png", line) for k, line in enumerate(line for line in lines if line)]


def _prompts_json(file: Path) -> list[Prompt]:
    prompts = []
    for key, entry in read_json(file, dict).items():
        name, text = _values(file, key, entry, "image_name", "text_prompt")
        prompts.append(
            Prompt(_text(file, key, "image_name", name), _text(file, key, "text_prompt", text))
        )
    return prompts


def _prompts_csv(file: Path) -> list[Prompt]:
    return [Prompt(row["id"], row["prompt"]) for row in read_csv(file, "id", "prompt")]


PROMPT_FILES = {".txt": _prompts_txt, ".json": _prompts_json, ".csv": _prompts_csv}


# ---- reading, with one-line errors


def _values(file: Path, key: str, entry, *names: str) -> list:
    """The values of the names in one entry of a JSON file."""
    if not isinstance(entry, dict):
        raise InputError(
            f"{file}: {key}: expected an object with {', '.join(names)}, got {type(entry).__name__}"
        )
    for name in names:
        if name not in entry:
            raise InputError(f"{file}: {key}: no {name!r}, expected {', '.join(names)}")
    return [entry[name] for name in names]


def _text(file: Path, key: str, name: str, value) -> str:
    if not isinstance(value, str):
        raise InputError(f"{file}: {key}: {name!r} is {type(value).__name__}, expected a string")
    return value


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with images")
    found = (
        p
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    return sorted(found)


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"
