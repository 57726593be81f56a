"""Image files -> feature vectors, by a frozen network, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.data.images import load_image
from tinyldm.frozen.image import ClipScorer

READERS = 4  # threads that read and prepare images


@dataclass(frozen=True)
class Extractor:
    """A network in eval mode that turns images into vectors.

    name:          of the network, with a hash of all that decides its vectors
    preprocessing: what prepare does, in words
    prepare:       an RGB image -> (c, h, w)
    embed:         (b, c, h, w) on any device -> (b, d)
    """

    name: str
    preprocessing: str
    prepare: Callable[[Image.Image], Tensor]
    embed: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def features(self, files: Sequence[Path], batch_size: int = 64) -> Tensor:
        """The features (n, d) of image files, float32 on the CPU; transparency lies on white."""

        def read(file: Path) -> Tensor:
            return self.prepare(load_image(file))

        found = []
        starts = range(0, len(files), batch_size)
        title = f"{self.name.split()[0]} features"
        with ThreadPoolExecutor(READERS) as pool:
            for start in tqdm(starts, title, unit="batch", delay=2):
                batch = list(pool.map(read, files[start : start + batch_size]))
                found.append(self.embed(torch.stack(batch)).float().cpu())
        return torch.cat(found)

    @cached_property
    @torch.inference_mode()
    def width(self) -> int:
        """d, the number of features of an image."""
        blank = self.prepare(Image.new("RGB", (64, 64)))
        return self.embed(blank[None]).shape[1]


def clip_extractor(scorer: ClipScorer, name: str) -> Extractor:
    """The image tower of a CLIP; its vectors are not normalised."""
    size = scorer.model.config.vision_config.image_size
    return Extractor(
        name=f"CLIP {name} {scorer.fingerprint}",
        preprocessing=(
            f"short side to {size} (Pillow, bicubic), centre crop, CLIP's mean and deviation"
        ),
        prepare=scorer.prepare,
        embed=scorer.embed,
    )
