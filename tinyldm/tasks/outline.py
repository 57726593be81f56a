"""The task "outline": pictures that follow the outlines of another picture, and a caption.

The maps come from the pictures themselves, so any captioned folder will do. It is what a ControlNet
learns from when a run knows captions alone: train.py --controlnet --from RUN --task outline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.data.examples import Example, Layout, Prompt
from tinyldm.tasks.base import Encoder
from tinyldm.tasks.pictures import PictureEncoder, PictureTask, Sketch, to_area
from tinyldm.tasks.text import CaptionFacts, TextTask

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from tinyldm.condition import Condition
    from tinyldm.frozen.text import TextEncoder, TextEncoderOnDemand
    from tinyldm.training.settings import TrainSettings

GRAIN = 4  # maps have so many times the latents' height and width


class OutlineEncoder(PictureEncoder):
    """Sketches -> tokens of their captions, and maps (b, GRAIN^2, *area): 1 on an outline, else 0.

    The channels are the GRAIN x GRAIN pixels of a cell.
    """

    map_mode = "L"

    def __init__(self, text_encoder: TextEncoder | TextEncoderOnDemand, area: tuple[int, int]):
        self.text_encoder = text_encoder
        self.area = area
        self.width = text_encoder.width
        self.map_size = (GRAIN * area[0], GRAIN * area[1])
        self.fingerprint = f"outline {text_encoder.fingerprint}"

    def get_ready(self) -> None:
        """Load the text encoder."""
        from tinyldm.frozen.known import load_now

        load_now(self.text_encoder)

    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """The last hidden states of the captions."""
        return self.text_encoder.encode([Sketch.of(prompt).caption for prompt in prompts])

    def tokens(self, stored: Condition) -> Condition:
        return stored

    def seen(self, maps: Tensor) -> Tensor:
        return to_area(maps.float() / 255, self.area)

    def keys(self, prompts: Sequence[Prompt]) -> list[str]:
        """The captions, which alone decide the stored tokens."""
        return [Sketch.of(prompt).caption for prompt in prompts]

    def read_map(self, prompt: Prompt, image: Path | None = None) -> Image:
        """The outlines of the picture, white on black."""
        from tinyldm.data.images import load_image

        return outline(load_image(self.map_file(prompt)))


def outline(picture: Image) -> Image:
    """How strongly colours change around each pixel: a picture of the same size, in mode L.

    It is the length of Sobel's gradient in the channel where that is largest; a step from black to
    white is 255.
    """
    import numpy as np
    from PIL import Image

    pixels = np.pad(np.asarray(picture, np.float32), ((1, 1), (1, 1), (0, 0)), "edge")
    rows = pixels[2:] - pixels[:-2]  # (h, w + 2, 3)
    columns = pixels[:, 2:] - pixels[:, :-2]  # (h + 2, w, 3)
    y = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    x = (columns[:-2] + 2 * columns[1:-1] + columns[2:]) / 4
    length = np.hypot(x, y).max(2).clip(0, 255)
    return Image.fromarray(np.rint(length).astype(np.uint8))


def with_outlines(layout: Layout) -> Layout:
    """A layout of captioned pictures, each of which is its own sketch."""

    def read(folder: Path, split: str, problems: list[str]) -> list[Example]:
        examples = []
        for example in layout.read(folder, split, problems):
            path = example.image
            if path.is_relative_to(folder):  # a table may name others by their whole paths
                path = path.relative_to(folder)
            sketches = [Sketch(str(path), str(caption), folder) for caption in example.prompts]
            examples.append(Example(example.image, tuple(sketches)))
        return examples

    return replace(layout, read=read)


class OutlineTask(PictureTask):
    """Captioned pictures, with outlines to follow."""

    name = "outline"
    options = frozenset({"text_encoder"})
    facts = CaptionFacts
    layouts = tuple(with_outlines(layout) for layout in TextTask.layouts)

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """That of captions."""
        return TextTask().recipe(native, given)

    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """Which text encoder."""
        return {"name": settings.text_encoder}

    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The sketches' encoder."""
        from tinyldm.frozen.text import TextEncoderOnDemand

        return OutlineEncoder(TextEncoderOnDemand(facts["name"], device), area)
