"""Folders of images to score or to hand in: is every image there, under its name, of one size?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.data.examples import Request, images_below, images_in
from tinyldm.data.images import load_image, open_image, resize, to_bytes
from tinyldm.errors import InputError
from tinyldm.sampling.folder import RECORD


def samples_below(folder: Path) -> list[Path]:
    """The image files in a folder and in its subfolders, by name.

    Left out is what sample.py keeps beside its pictures, such as a grid.
    """
    return [file for file in images_below(folder) if not is_beside(file, folder)]


def is_beside(file: Path, folder: Path) -> bool:
    """Whether a file below a folder is no sample, but lies beside the record of some samples."""
    record = file.with_name(Path(RECORD).name)
    return file.parent != folder and file.parent.parent / RECORD == record and record.is_file()


def read_pixels(files: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Image files squashed to (h, w), as uint8 (n, 3, h, w)."""
    progress = tqdm(files, "reading images", unit="image", disable=len(files) < 500)
    return torch.stack([to_bytes(resize(load_image(file), size)) for file in progress])


def first_few(names: Iterable[str]) -> str:
    """The first five of many names, and how many more there are, for a message."""
    names = list(names)
    listed = ", ".join(names[:5])
    if len(names) > 5:
        listed += f" and {len(names) - 5} more"
    return listed


def missing_names(names: Iterable[str], files: Iterable[Path]) -> list[str]:
    """The names that none of the files has."""
    there = {file.name for file in files}
    return [name for name in names if name not in there]


def read_headers(files: Collection[Path]) -> list[tuple[tuple[int, int], str, str | None]]:
    """(width, height), mode and format of each image file, which is not decoded."""
    headers = []
    for file in tqdm(files, "checking images", unit="image", disable=len(files) < 5000):
        with open_image(file) as image:
            headers.append((image.size, image.mode, image.format))
    return headers


def check_sizes(files: Sequence[Path]) -> None:
    """InputError unless all image files have the same size."""
    sizes = [f"{width}x{height}" for (width, height), _, _ in read_headers(files)]
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(f"{file}: is {size}, expected {sizes[0]} as {files[0].name}")


def check_requested(folder: Path, requests: Sequence[Request], record: Mapping) -> None:
    """InputError unless a folder holds the images of these requests and no others.

    record: what sample.py wrote about the folder, if anything; an image that it drew from another
    prompt than the request's is an error too.
    """
    missing = [request.name for request in requests if not (folder / request.name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(requests)} images are missing: {first_few(missing)}"
        )
    there = {file.name for file in images_in(folder)}
    more = sorted(there - {request.name for request in requests})
    if more:
        raise InputError(
            f"{folder}: {len(more)} images that no prompt asks for: {first_few(more)}; "
            "move them elsewhere"
        )
    drawn_from = record.get("images", {})
    for request in requests:
        text = drawn_from.get(request.name, request.text)
        if text != request.text:
            raise InputError(
                f"{folder / request.name}: was drawn from {text!r}, "
                f"but the prompt is {request.text!r}"
            )
