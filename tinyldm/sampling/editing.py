"""What pictures are drawn from besides their prompts and seeds: a picture, a mask, another seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tinyldm.data.examples import Prompt, Request
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.diffusion.sampler import noise_source
from tinyldm.errors import InputError
from tinyldm.methods.editing import Inpainting, cells_to_draw
from tinyldm.methods.interpolation import slerp
from tinyldm.sampling.compositions import Also, between, composed
from tinyldm.sampling.drawing import Canvas, Painter, encode_prompts, picture_seed
from tinyldm.tasks.base import Encoder
from tinyldm.training.frozen_models import FrozenModels

WHITE = 128  # the grey from which on a mask is white


@dataclass(frozen=True)
class Editing:
    """What a job does besides drawing its prompts from noise; by default nothing.

    init:        a picture to draw on, at the size of the run
    mask:        of mode "L" and the same size, 255 where it is drawn and 0 where it stays
    strength:    0 to 1, how far it is drawn anew
    resample:    how many times each step is taken, with a mask
    invert:      what the picture shows: it is drawn from its own noise, not from that of the seed
    also:        what every picture shows as well, with weights
    interpolate: so many pictures lead from the first prompt to the last
    to_seed:     and from the noise of the seed to that of this one
    """

    init: Image.Image | None = None
    mask: Image.Image | None = None
    strength: float = 1.0
    resample: int = 1
    invert: Prompt | None = None
    also: Also = ()
    interpolate: int = 0
    to_seed: int | None = None

    @property
    def shares(self) -> list[float]:
        """How far along the way each picture of an interpolation is, 0 to 1."""
        return torch.linspace(0, 1, self.interpolate, dtype=torch.float64).tolist()

    def record(self) -> dict[str, Any]:
        """What of it decides the pictures. What a picture shows is in the prompts already."""
        known: dict[str, Any] = {}
        if self.init is not None:
            known |= {"init": _hash(self.init), "strength": self.strength}
        if self.mask is not None:
            known["mask"] = _hash(self.mask)
            known |= {"resample": self.resample} if self.resample > 1 else {}
        if self.invert is not None:
            known["invert"] = str(self.invert)
        if self.interpolate:
            known |= {"interpolate": self.interpolate, "to_seed": self.to_seed}
        return known

    def requests(self, requests: Sequence[Request]) -> list[Request]:
        """What is to be drawn, given what was asked for."""
        if self.interpolate:
            requests = between(requests[0].prompt, requests[-1].prompt, self.shares)
        return [replace(each, prompt=self.composed(each.prompt)) for each in requests]

    def composed(self, prompt: Prompt) -> Prompt:
        """A prompt, with what every picture shows as well."""
        return composed(prompt, self.also)

    def canvas(self, painter: Painter, vae: Any) -> Canvas | None:
        """The picture as its painter needs it: encoded, and normalised as the run's latents are."""
        if self.init is None:
            return None
        with torch.inference_mode():
            pixels = from_bytes(to_bytes(self.init)[None].to(painter.device))
            latents = vae.encode(pixels).mean  # (1, c, h, w)
        x0 = (latents - painter.mean.to(latents)) / painter.std.to(latents)
        if self.mask is None:
            return Canvas(x0, self.strength)
        pixels_to_draw = torch.from_numpy(np.array(self.mask))[None, None]
        cells = cells_to_draw(pixels_to_draw, (x0.shape[2], x0.shape[3]))
        stays = Inpainting(x0, cells)
        kept = (self.init, self.mask)
        return Canvas(x0, self.strength, stays, kept=kept, times=self.resample)

    def noise(self, painter: Painter, encoder: Encoder, count: int, seed: int) -> Tensor | None:
        """What each of `count` pictures starts from (count, c, h, w); None: the noise of its seed.

        painter: with its canvas
        """
        if self.invert is not None:
            shown = encode_prompts(encoder, [self.invert])
            return painter.invert(shown).expand(count, -1, -1, -1)
        if not self.interpolate:
            return None
        ends = []
        for end in (seed, seed if self.to_seed is None else self.to_seed):
            shape, seeds = (1, *painter.latent_shape), [picture_seed(end, 0)]
            ends.append(noise_source(shape, seeds, painter.device, torch.float32)())
        return slerp(ends[0], ends[1], torch.tensor(self.shares))

    def begin(self, painter: Painter, models: FrozenModels, count: int, seed: int) -> Painter:
        """The painter with what it needs to draw `count` pictures: its canvas, where they start."""
        painter = replace(painter, canvas=self.canvas(painter, models.vae))
        return replace(painter, starts=self.noise(painter, models.encoder, max(count, 1), seed))


def read_picture(file: Path, size: tuple[int, int]) -> Image.Image:
    """A picture to draw on, at a size (h, w), brought to it as the pictures of the data are."""
    return resize(load_image(file), size)


def read_mask(file: Path, picture: Path, size: tuple[int, int]) -> Image.Image:
    """The mask in a file of the picture in another; see mask_at."""
    mask, like = load_image(file), load_image(picture)
    return mask_at(mask, like, size, named=f"--mask {file}", picture=str(picture))


def mask_at(
    mask: Image.Image,
    like: Image.Image,
    size: tuple[int, int],
    named: str = "mask",
    picture: str = "init",
) -> Image.Image:
    """A mask of a picture at a size (h, w). A pixel is white if any is that it is made of.

    named, picture: what messages call the two
    InputError: it is not as large as the picture, or nothing of it is white.
    """
    mask = mask.convert("L")
    if mask.size != like.size:
        raise InputError(
            f"{named}: has {mask.width}x{mask.height} pixels, "
            f"expected {like.width}x{like.height} as {picture} has"
        )
    white = torch.from_numpy(np.array(mask) >= WHITE)
    if not white.any():
        raise InputError(f"{named}: nothing is white; expected white where to draw anew")
    drawn = cells_to_draw(white[None, None], size)[0, 0]
    return Image.fromarray(drawn.numpy().astype(np.uint8) * 255)


def _hash(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
