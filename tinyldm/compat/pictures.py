"""Pictures made of what pipelines return: diffusers.utils' names for them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor


def numpy_to_pil(images: np.ndarray) -> list[Image.Image]:
    """Arrays (b, h, w, c) or (h, w, c) in [0, 1] as pictures; one channel makes them grey."""
    if images.ndim == 3:
        images = images[None]
    pixels = (images * 255).round().astype("uint8")
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return [Image.fromarray(picture) for picture in pixels]


def pt_to_pil(images: Tensor) -> list[Image.Image]:
    """A batch (b, c, h, w) in [-1, 1] as pictures."""
    images = (images / 2 + 0.5).clamp(0, 1)
    return numpy_to_pil(images.cpu().permute(0, 2, 3, 1).float().numpy())


def make_image_grid(
    images: list[Image.Image], rows: int, cols: int, resize: int | None = None
) -> Image.Image:
    """One picture of rows x cols pictures, each made resize x resize first where that is given."""
    if len(images) != rows * cols:
        raise ValueError(f"{len(images)} images, expected rows x cols, {rows} x {cols}")
    if resize is not None:
        images = [image.resize((resize, resize)) for image in images]
    w, h = images[0].size
    grid = Image.new("RGB", (cols * w, rows * h))
    for k, image in enumerate(images):
        grid.paste(image, (k % cols * w, k // cols * h))
    return grid
