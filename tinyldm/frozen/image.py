"""A frozen CLIP with both towers: images and captions as vectors of one space (2103.00020)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinyldm.frozen.hub import Role, find_file, local_or_hub
from tinyldm.frozen.loading import fingerprint, load_model, load_pretrained, resolve
from tinyldm.typed import Limits, read_json

ROLE = Role("CLIP", "--clip")
SETTINGS = "preprocessor_config.json"
Share = Annotated[float, Limits(ge=0, le=1)]
Deviation = Annotated[float, Limits(gt=0, le=1)]


@dataclass(frozen=True)
class Preprocessor:
    """What is read of a preprocessor_config.json: three colours each, of pixels in [0, 1]."""

    image_mean: tuple[Share, Share, Share]
    image_std: tuple[Deviation, Deviation, Deviation]


def pixel_statistics(source: str, role: Role) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels (in [0, 1]) that a CLIP expects: (3, 1, 1) each.

    source: a folder or a hub name
    """

    def load(source: str, local_files_only: bool) -> tuple[Tensor, Tensor]:
        file = find_file(source, SETTINGS, local_files_only)
        if file is None:
            raise OSError(f"{SETTINGS}: no such file in it")
        settings = read_json(file, Preprocessor, extra="ignore")
        mean, std = torch.tensor(settings.image_mean), torch.tensor(settings.image_std)
        return mean.view(3, 1, 1), std.view(3, 1, 1)

    return local_or_hub(load, source, role)


def statistics_as_json(mean: Tensor, std: Tensor) -> list[list[float]]:
    """Mean and standard deviation of the pixels, as a fingerprint takes them in."""
    return [mean.flatten().tolist(), std.flatten().tolist()]


class ClipScorer:
    """A frozen CLIP. The dot product of two of its unit vectors is their cosine similarity.

    mean, std: of the pixels that it expects, for each colour
    """

    def __init__(self, model: Any, tokenizer: Any, mean: Any, std: Any):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.mean = torch.as_tensor(mean, device=model.device).view(3, 1, 1)
        self.std = torch.as_tensor(std, device=model.device).view(3, 1, 1)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides what the CLIP makes of an image."""
        return fingerprint(self.model, statistics_as_json(self.mean, self.std))

    @classmethod
    def load(cls, name: str | Path, device: torch.device | str = "cpu") -> ClipScorer:
        """A whole CLIPModel in a folder or under a hub name, or "tiny"; strict about weights."""
        from transformers import AutoTokenizer, CLIPModel

        source = resolve(name)
        model = load_model(CLIPModel, source, ROLE).to(device)
        tokenizer = load_pretrained(AutoTokenizer, source, ROLE)
        mean, std = pixel_statistics(source, ROLE)
        return cls(model, tokenizer, mean, std)

    def prepare(self, image: Image.Image) -> Tensor:
        """An image as the network's input (3, s, s), made as in OpenAI's own code.

        The short side is resized to s (224 for ViT-B/32), in 8-bit colours and by Pillow's bicubic
        filter, and the middle is cut out.
        """
        size = self.model.config.vision_config.image_size
        image = image.convert("RGB")
        short = min(image.size)
        if short != size:
            width, height = (int(size * side / short) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        middle = np.array(image.crop((left, top, left + size, top + size)))  # (s, s, 3) uint8
        pixels = torch.from_numpy(middle).permute(2, 0, 1).float() / 255
        return (pixels - self.mean.cpu()) / self.std.cpu()

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Prepared pixels (b, 3, s, s) as vectors (b, d) of the common space, not normalised."""
        states = self.model.vision_model(pixel_values=pixels.to(self.model.device))
        return self.model.visual_projection(states.pooler_output)

    def images(self, images: list[Image.Image]) -> Tensor:
        """Images of any sizes as unit vectors (b, d)."""
        pixels = torch.stack([self.prepare(image) for image in images])
        return F.normalize(self.embed(pixels), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Captions as unit vectors (b, d). Of one that is too long, the rest is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=length
        )
        states = self.model.text_model(
            input_ids=inputs["input_ids"].to(self.model.device),
            attention_mask=inputs["attention_mask"].to(self.model.device),
        )
        return F.normalize(self.model.text_projection(states.pooler_output), dim=-1)
