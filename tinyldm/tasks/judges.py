"""The judges of tasks: small networks that read off a picture what it shows, and their scores.

label_judge() reads the labels of a picture, map_judge() its segmentation map. A task returns one of
them from Task.judge(); scores/evaluator.py trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tinyldm.data.images import resize
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.tasks.base import Judge


class Block(nn.Module):
    """Two convolutions and a shortcut past them, as in a ResNet (1512.03385, fig. 5, left)."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.past: nn.Module = nn.Identity()
        if stride > 1 or width != width_in:
            self.past = nn.Conv2d(width_in, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(b, width_in, h, w) -> (b, width, h / stride, w / stride)"""
        h = F.relu(self.norm1(self.conv1(x)))
        h = self.norm2(self.conv2(h))
        return F.relu(h + self.past(x))


class LabelNet(nn.Module):
    """Reads labels off a picture: a ResNet with one block a level, a fraction of ResNet18."""

    def __init__(self, labels: int, widths: tuple[int, ...] = (32, 64, 128, 192)):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        steps = pairwise((widths[0], *widths))
        self.blocks = nn.Sequential(*(Block(before, after, 2) for before, after in steps))
        self.head = nn.Linear(widths[-1], labels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [-1, 1] -> a logit for each label, (b, labels)."""
        features = self.blocks(self.stem(images))
        return self.head(features.mean((2, 3)))


class MapNet(UNet):
    """Reads a segmentation map off a picture: a small UNet without attention, told no time."""

    def __init__(self, classes: int):
        super().__init__(
            UNetConfig(
                in_channels=3,
                out_channels=classes,
                channels=(24, 48, 96),
                attention="none",
                middle="none",
                blocks=1,
                groups=8,
            )
        )

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]  # no time, no condition
        """Images (b, 3, h, w) in [-1, 1] -> the logits of each pixel, (b, classes, h, w)."""
        return super().forward(images, 0.0)


def label_judge(names: Sequence[str], marks: Callable[[Sequence[Any]], Tensor]) -> Judge:
    """A judge of pictures that are to show labels.

    names: of the labels, in the order of the logits
    marks: (n prompts) -> which labels each of them asks for, (n, labels) bool
    """

    def truth(
        prompts: Sequence[Any], size: tuple[int, int], images: Sequence[Path] | None
    ) -> Tensor:
        return marks(prompts)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, wanted.float())

    return Judge(
        network=LabelNet,
        loss=loss,
        truth=truth,
        scores={"top-k": top_k_accuracy, "all right": exact_accuracy},
        names=tuple(names),
        steps=2500,
        batch_size=64,
    )


def map_judge(names: Sequence[str], load_map: Callable[[Path, Path | None], Image.Image]) -> Judge:
    """A judge of pictures that are to look like segmentation maps; its prompts have a map_file.

    names:    of the classes, in the order of their numbers
    load_map: (file, image) -> a single-channel image of class numbers; InputError for a bad file,
              or one that is not as large as the image, where that is known
    """

    def truth(
        prompts: Sequence[Any], size: tuple[int, int], images: Sequence[Path] | None
    ) -> Tensor:
        maps = []
        for row, prompt in enumerate(prompts):
            image = images[row] if images is not None else None
            resized = resize(load_map(prompt.map_file, image), size, nearest=True)
            maps.append(torch.from_numpy(np.array(resized)))
        return torch.stack(maps)  # (n, h, w) uint8

    def loss(logits: Tensor, maps: Tensor) -> Tensor:
        return F.cross_entropy(logits, maps.long())

    return Judge(
        network=MapNet,
        loss=loss,
        truth=truth,
        scores={"pixels": class_accuracy},
        names=tuple(names),
        steps=1000,
        batch_size=32,
    )


def top_k_accuracy(logits: Tensor, wanted: Tensor) -> float:
    """The assignment's score: the share of all wanted labels that are among the top k of an image.

    logits: (b, labels); wanted: (b, labels) bool; k: the number of labels that the image is to
    show. Found and wanted labels are counted over all images and then divided, which is not the
    mean of each image's share; an image without labels counts nothing.
    """
    found = _among_top_k(logits, wanted) & wanted
    return found.sum().item() / max(int(wanted.sum()), 1)


def exact_accuracy(logits: Tensor, wanted: Tensor) -> float:
    """The share of images whose top k labels are exactly those wanted."""
    right = (_among_top_k(logits, wanted) == wanted).all(1)
    return right.double().mean().item()


def _among_top_k(logits: Tensor, wanted: Tensor) -> Tensor:
    """Whether a label is among the top k of its image, (b, labels) bool."""
    rank = logits.argsort(1, descending=True).argsort(1)
    k = wanted.sum(1, keepdim=True)
    return rank < k


def class_accuracy(logits: Tensor, maps: Tensor) -> float:
    """The share of pixels whose likeliest class is that of the map.

    logits: (b, classes, h, w); maps: (b, h, w) class numbers
    """
    return (logits.argmax(1) == maps).double().mean().item()
