"""Segmentation maps, as the landscape assignment has them: images of class numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinyldm.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# The classes of the assignment's maps, in the order of their numbers, 0 to 28.
CLASSES = (
    "mountain",
    "sky",
    "water",
    "sea",
    "rock",
    "tree",
    "earth",
    "hill",
    "river",
    "sand",
    "land",
    "building",
    "grass",
    "plant",
    "person",
    "boat",
    "waterfall",
    "wall",
    "pier",
    "path",
    "lake",
    "bridge",
    "field",
    "road",
    "railing",
    "fence",
    "ship",
    "house",
    "other",
)


def load_map(file: Path, image: Path | None = None) -> Image:
    """A single-channel image of class numbers, as large as its image; InputError if it is not."""
    import numpy as np
    from PIL import Image

    from tinyldm.data.images import open_image

    with open_image(file, kind="segmentation map") as opened:
        opened.load()
    if opened.mode not in ("L", "P"):
        raise InputError(
            f"{file}: a segmentation map has one channel of 8 bits, this image is {opened.mode}"
        )
    numbers = np.asarray(opened)  # of an image with a palette, the numbers and not the colours
    if numbers.max() >= len(CLASSES):
        last = len(CLASSES) - 1
        raise InputError(f"{file}: a value of {numbers.max()}, expected classes from 0 to {last}")
    if image is not None:
        check_same_size(file, opened.size, image)
    return Image.fromarray(numbers)


def check_same_size(file: Path, size: tuple[int, int], image: Path) -> None:
    """InputError unless a map of size (width, height) is as large as its image."""
    expected = image_size(image)
    if expected is not None and size != expected:
        found = "x".join(map(str, size))
        wanted = "x".join(map(str, expected))
        raise InputError(f"{file}: is {found}, but its image {image.name} is {wanted}")


def image_size(file: Path) -> tuple[int, int] | None:
    """(width, height) of an image file; None if it cannot be read, which encoding will tell."""
    from tinyldm.data.images import open_image

    try:
        with open_image(file) as image:
            return image.size
    except InputError:
        return None


def class_shares(maps: Tensor, area: tuple[int, int]) -> Tensor:
    """uint8 maps (b, h, w) -> the share of each class in each cell, (b, 29, *area)."""
    import torch
    import torch.nn.functional as F

    classes = torch.arange(len(CLASSES), dtype=torch.uint8, device=maps.device)
    one_hot = (maps[:, None] == classes[:, None, None]).float()  # (b, 29, h, w)
    return F.adaptive_avg_pool2d(one_hot, area)
