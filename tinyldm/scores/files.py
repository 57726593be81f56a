"""The folders that are scored and handed in: is every image there, under its name, of one size?"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tqdm import tqdm

from tinyldm.data.examples import IMAGE_SUFFIXES, Prompt
from tinyldm.errors import InputError


def image_files(folder: Path) -> tuple[Path, ...]:
    """The images that lie in a folder, by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with images")
    return tuple(
        sorted(
            f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.name[0] != "."
        )
    )


def some(names) -> str:
    """The first five of many names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def missing_names(names, files) -> list[str]:
    """Those of the names that none of the files has."""
    there = {file.name for file in files}
    return [name for name in names if name not in there]


def read_headers(files) -> list[tuple[tuple[int, int], str, str]]:
    """(width, height), mode and format of image files, without decoding them."""
    headers = []
    for file in tqdm(files, "checking images", unit="image", disable=len(files) < 5000):
        try:
            with Image.open(file) as image:
                headers.append((image.size, image.mode, image.format))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"{file}: not an image that can be read ({' '.join(str(error).split())})"
            ) from None
    return headers


def check_sizes(files) -> None:
    """InputError unless all image files are of one size."""
    sizes = ["x".join(map(str, size)) for size, *_ in read_headers(files)]
    for file, size in zip(files, sizes):
        if size != sizes[0]:
            raise InputError(f"{file}: is {size}, expected {sizes[0]} as {files[0].name}")


def check_prompted(folder: Path, prompts: list[Prompt], record: dict):
    """Every prompt must have its image, every image its prompt, from which it was drawn as far as that is known."""
    missing = [prompt.name for prompt in prompts if not (folder / prompt.name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(prompts)} images are missing: {some(missing)}"
        )
    more = sorted({file.name for file in image_files(folder)} - {prompt.name for prompt in prompts})
    if more:
        raise InputError(
            f"{folder}: {len(more)} images that no prompt asks for: {some(more)}; move them elsewhere"
        )
    for prompt in prompts:
        drawn = record.get("images", {}).get(prompt.name, prompt.text)
        if drawn != prompt.text:
            raise InputError(
                f"{folder / prompt.name}: was drawn from {drawn!r}, but the prompt is {prompt.text!r}"
            )
