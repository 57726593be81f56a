"""The task "super-resolution": a small picture becomes a large one (SR3, 2104.07636).

The network sees the small picture beside x_t, enlarged to the size of the latents (section 2). Any
folder of images will do: the small pictures are made of the large ones, bicubically. A prompt is
the file of a picture; one that is larger than expected is made small first, so that what is drawn
can be compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.data.cache import key_of
from tinyldm.data.examples import Example, Layout, Prompt, images_in
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, no_tokens
from tinyldm.tasks.pictures import PictureEncoder, PictureTask, Sketch, to_area
from tinyldm.tasks.text import TextTask
from tinyldm.typed import Side

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from tinyldm.condition import Condition
    from tinyldm.training.settings import TrainSettings


class SmallPictures(PictureEncoder):
    """Pictures -> maps (b, k, *area) in [-1, 1]: the small picture, fitted to the latents.

    Where the latents are larger it is enlarged; where they are smaller, the pixels of a cell are
    channels of it. Pictures have no tokens.
    """

    map_mode = "RGB"
    width = 1

    def __init__(self, small: tuple[int, int], area: tuple[int, int]):
        self.map_size = small
        self.area = area
        self.fingerprint = key_of(("super-resolution", small, area))[:16]

    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """No tokens."""
        return no_tokens(len(prompts))

    def tokens(self, stored: Condition) -> Condition:
        from tinyldm.condition import Condition

        return Condition()

    def seen(self, maps: Tensor) -> Tensor:
        from tinyldm.data.images import from_bytes

        return to_area(from_bytes(maps), self.area)

    def keys(self, prompts: Sequence[Prompt]) -> list[str]:
        """The same for all, for nothing of theirs is stored but the maps."""
        return [""] * len(prompts)

    def read_map(self, prompt: Prompt, image: Path | None = None) -> Image:
        """The picture itself; the cache makes it small."""
        from tinyldm.data.images import load_image

        return load_image(self.map_file(prompt))


def place_of(folder: Path, split: str) -> Path | None:
    """Where the images of a split lie: in its subfolder or, to train, in the folder itself."""
    places = [folder / split, folder] if split == "train" else [folder / split]
    return next((place for place in places if place.is_dir() and images_in(place)), None)


def read_pictures(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """Each image, with itself as its prompt."""
    place = place_of(folder, split)
    if place is None:
        raise InputError(f"{folder / split}: no images")
    examples = []
    for image in images_in(place):
        sketch = Sketch(str(image.relative_to(folder)), folder=folder)
        examples.append(Example(image, (sketch,)))
    return examples


@dataclass(frozen=True)
class SizeFacts:
    """What a checkpoint says of the encoder: the size (h, w) of the small pictures."""

    small: tuple[Side, Side]


class SuperResolutionTask(PictureTask):
    """Large pictures of small ones."""

    name = "super-resolution"
    options = frozenset({"factor"})
    facts = SizeFacts
    layouts = (
        Layout(
            "pictures",
            "images, in the folder or in its train/",
            detect=lambda folder: place_of(folder, "train") is not None,
            read=read_pictures,
        ),
    )

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """That of captions, without guidance, which there is no use for."""
        return {**TextTask().recipe(native, given), "cfg_drop": 0.0}

    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """How small the pictures are."""
        height, width = settings.size
        if height % settings.factor or width % settings.factor:
            settings.refuse("factor", f"a divisor of the size, {width}x{height}")
        return {"small": [height // settings.factor, width // settings.factor]}

    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The encoder of small pictures; InputError where they cannot be fitted to the latents."""
        height, width = facts["small"]
        ratio = max(height // area[0], 1)
        if height > area[0] and (height, width) != (ratio * area[0], ratio * area[1]):
            raise InputError(
                f"--factor: small pictures of {width}x{height} do not fit latents of "
                f"{area[1]}x{area[0]}; expected a divisor of the VAE's factor, or more than that"
            )
        return SmallPictures((height, width), area)
