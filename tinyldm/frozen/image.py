"""Pictures and captions in the common space of a CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from PIL import Image
from torch import Tensor

from tinyldm.frozen.loading import load_pretrained, load_weights
from tinyldm.frozen.text import resolve

SETTINGS = "preprocessor_config.json"
NAMES = ("CLIP", "--clip")


def pixel_statistics(source: str, local_files_only: bool) -> dict:
    """The settings of a CLIP's pictures: image_mean and image_std, of pixels in [0, 1]."""
    folder = Path(source)
    found = folder.exists()
    file = (
        folder / SETTINGS
        if found
        else hf_hub_download(source, SETTINGS, local_files_only=local_files_only)
    )
    return json.loads(Path(file).read_text())


class ClipScorer:
    """A frozen CLIP with both towers; the dot product of two of its vectors is the cosine similarity."""

    def __init__(self, model, tokenizer, mean, std):
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.mean, self.std = (
            torch.tensor(v, device=model.device)[:, None, None] for v in (mean, std)
        )

    @classmethod
    def load(cls, name: str | Path, device="cpu") -> ClipScorer:
        """The folder or hub name of a whole CLIPModel, or "tiny"; strict about weights."""
        from transformers import AutoTokenizer, CLIPModel

        source = resolve(name)
        model = load_weights(CLIPModel, source, *NAMES).to(device)
        tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, *NAMES)
        settings = load_pretrained(pixel_statistics, source, *NAMES)
        return cls(model, tokenizer, settings["image_mean"], settings["image_std"])

    def prepare(self, image: Image.Image) -> Tensor:
        """An image as the network's input (3, s, s), prepared as OpenAI's own code does: s = 224 for ViT-B/32.

        The short side is resized to s on 8-bit colours by Pillow's bicubic filter, then the middle is cut out.
        """
        size = self.model.config.vision_config.image_size
        side, image = min(image.size), image.convert("RGB")
        if side != size:
            image = image.resize(
                tuple(int(size * length / side) for length in image.size), Image.Resampling.BICUBIC
            )
        left, top = (round((length - size) / 2) for length in image.size)
        pixels = np.array(image.crop((left, top, left + size, top + size)))
        return (
            torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - self.mean.cpu()
        ) / self.std.cpu()

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Prepared pixels (b, 3, s, s) as vectors (b, d) of the common space, not normalised."""
        views = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
        return self.model.visual_projection(views)

    def images(self, images: list[Image.Image]) -> Tensor:
        """Images as unit vectors (b, d)."""
        return F.normalize(
            self.embed(torch.stack([self.prepare(image) for image in images])), dim=-1
        )

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Captions as unit vectors (b, d)."""
        length = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=length
        )
        states = self.model.text_model(
            **{k: inputs[k].to(self.model.device) for k in ("input_ids", "attention_mask")}
        )
        return F.normalize(self.model.text_projection(states.pooler_output), dim=-1)
