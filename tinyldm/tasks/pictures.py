"""What tasks share whose maps are pictures: a prompt that names a picture, and its encoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tinyldm.data.cache import key_of
from tinyldm.data.examples import IMAGE_SUFFIXES, Prompt, Request, images_in
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, Task, as_batch
from tinyldm.tasks.paths import join_prompt, path_within, split_prompt

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from tinyldm.condition import Condition


@dataclass(frozen=True)
class Sketch:
    """A prompt: a picture whose map is to be followed, and a caption. Either may be missing.

    picture: a path that starts at the folder, or is absolute
    """

    picture: str = ""
    caption: str = ""
    folder: Path = field(default=Path(), compare=False)

    @property
    def file(self) -> Path | None:
        """The file of the picture."""
        return self.folder / self.picture if self.picture else None

    def __str__(self) -> str:
        return join_prompt(self.file, self.caption)

    @classmethod
    def of(cls, prompt: Prompt, folder: Path = Path()) -> Sketch:
        """The sketch of a prompt, which may be given as text: "picture.png | a green ghost"."""
        if isinstance(prompt, Sketch):
            return prompt
        return cls(*split_prompt(str(prompt)), folder)


class PictureEncoder(Encoder):
    """Turns sketches into Conditions whose maps are made of pictures.

    area: (h, w) of the latents, and so of the maps that the network sees
    """

    area: tuple[int, int]

    @property
    def empty(self) -> Sketch:
        """Neither picture nor caption."""
        return Sketch()

    @abstractmethod
    def seen(self, maps: Tensor) -> Tensor:
        """What the network sees of kept maps: uint8 (b, c, *map_size) -> (b, k, *area)."""

    @abstractmethod
    def read_map(self, prompt: Prompt, image: Path | None = None) -> Image:
        """The map of the picture, in Pillow's mode map_mode."""

    @abstractmethod
    def tokens(self, stored: Condition) -> Condition:
        """What the network is told besides the maps."""

    def finish(
        self, stored: Condition, maps: Tensor | None, generator: torch.Generator | None
    ) -> Condition:
        """The maps (b, k, *area) beside what is stored; all zero where there is no picture."""
        import torch

        assert stored.tokens is not None
        channels = 3 if self.map_mode == "RGB" else 1
        b, device = len(stored.tokens), stored.tokens.device
        assert self.map_size is not None
        if maps is None:
            kept = torch.zeros(b, channels, *self.map_size, dtype=torch.uint8, device=device)
            return replace(self.tokens(stored), maps=torch.zeros_like(self.seen(kept)))
        kept = maps.to(device).view(b, *self.map_size, channels).permute(0, 3, 1, 2)
        return replace(self.tokens(stored), maps=self.seen(kept))

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Sketches -> the whole Condition; InputError for a file that is missing or broken."""
        import numpy as np
        import torch

        from tinyldm.condition import Condition
        from tinyldm.data.images import resize

        rows = []
        assert self.map_size is not None
        for prompt in as_batch(prompts):
            stored = self.stored([prompt])
            maps = None
            if Sketch.of(prompt).file is not None:
                kept = resize(self.read_map(prompt), self.map_size)
                maps = torch.from_numpy(np.array(kept))[None]
            rows.append(self.finish(stored, maps, None))
        return Condition.cat(rows)

    def map_file(self, prompt: Prompt) -> Path:
        """The file of the picture."""
        file = Sketch.of(prompt).file
        if file is None:
            raise InputError(f"{str(prompt)!r}: expected a picture")
        return file

    def check(self, prompts: Sequence[Prompt]) -> str:
        """InputError for a picture that is missing or broken; a hash of all of them."""
        from tinyldm.data.encode import file_hashes

        files = [Sketch.of(prompt).file for prompt in prompts]
        known = [file for file in files if file is not None]
        for prompt, file in zip(prompts, files, strict=True):
            if file is not None:
                self.read_map(prompt)
        return key_of((file_hashes(known, workers=4, progress=False),))


def to_area(pictures: Tensor, area: tuple[int, int]) -> Tensor:
    """Pictures (b, c, h, w) -> (b, c k, *area), without the loss of a pixel.

    Smaller ones are enlarged, bicubically. Of larger ones, the pixels of a cell become its
    channels; h and w are then multiples of the area's.
    """
    import torch.nn.functional as F

    h = pictures.shape[2]
    if h <= area[0]:
        return F.interpolate(pictures, size=area, mode="bicubic", align_corners=False)
    return F.pixel_unshuffle(pictures, h // area[0])


class PictureTask(Task):
    """A task whose prompts name pictures. It has to be named, since any folder of images fits."""

    prompt_files = ()
    named_only = True

    def prompt(self, text: str, folder: Path = Path()) -> Sketch:
        """The sketch of "picture.png | caption"; a path may also start at the working folder."""
        sketch = Sketch.of(text, folder)
        here = Sketch.of(text)
        if here.file is not None and here.file.is_file() and not (folder / here.file).is_file():
            return here
        return sketch

    def text(self, prompt: Prompt, folder: Path = Path()) -> str:
        """The sketch with its path relative to the folder, where it lies inside of it."""
        sketch = Sketch.of(prompt)
        return join_prompt(path_within(folder, sketch.folder, sketch.picture), sketch.caption)

    def requests(self, file: Path) -> list[Request]:
        """A folder of images, or one image, each drawn as its stem with .png; or a .txt file."""
        if file.is_dir():
            images = images_in(file)
            if not images:
                raise InputError(f"{file}: no images")
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            images = [file]
        else:
            return super().requests(file)
        return [Request(f"{image.stem}.png", Sketch(str(image))) for image in images]
