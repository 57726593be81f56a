"""Pictures and captions in the common space of a CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor

from tinyldm.frozen.loading import load_pretrained, load_weights
from tinyldm.frozen.text import resolve

SETTINGS = "preprocessor_config.json"
NAMES = ("CLIP", "--clip")


def pixel_statistics(source: str, local_files_only: bool) -> dict:
    """The settings of a CLIP's pictures: image_mean and image_std, of pixels in [0, 1]."""
    folder = Path(source)
    found = folder.exists()
    file = folder / SETTINGS if found else hf_hub_download(source, SETTINGS, local_files_only=local_files_only)
    return json.loads(Path(file).read_text())


class ClipScorer:
    """A frozen CLIP with both towers; the dot product of two of its vectors is the cosine similarity."""

    def __init__(self, model, tokenizer, mean, std):
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.mean, self.std = (torch.tensor(v, device=model.device)[:, None, None] for v in (mean, std))

    @classmethod
    def load(cls, name: str | Path, device="cpu") -> ClipScorer:
        """The folder or hub name of a whole CLIPModel, or "tiny"; strict about weights."""
        from transformers import AutoTokenizer, CLIPModel

        source = resolve(name)
        model = load_weights(CLIPModel, source, *NAMES).to(device)
        tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, *NAMES)
        settings = load_pretrained(pixel_statistics, source, *NAMES)
        return cls(model, tokenizer, settings["image_mean"], settings["image_std"])

    @torch.no_grad()
    def images(self, images) -> Tensor:
        """PIL images, or (b, 3, h, w) in [-1, 1], as unit vectors (b, d); squares are resized, others cropped first."""
        if not isinstance(images, Tensor):
            pixels = [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1 for image in images]
            if len({p.shape for p in pixels}) > 1:
                return torch.cat([self.images(p[None]) for p in pixels])
            images = torch.stack(pixels)
        h, w = images.shape[-2:]
        side, size = min(h, w), self.model.config.vision_config.image_size
        top, left = (h - side) // 2, (w - side) // 2
        x = images[..., top : top + side, left : left + side].to(self.model.device).float() / 2 + 0.5
        if side != size:
            x = F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        views = self.model.vision_model(pixel_values=(x - self.mean) / self.std).pooler_output
        return F.normalize(self.model.visual_projection(views), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Captions as unit vectors (b, d)."""
        length = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=length)
        states = self.model.text_model(**{k: inputs[k].to(self.model.device) for k in ("input_ids", "attention_mask")})
        return F.normalize(self.model.text_projection(states.pooler_output), dim=-1)
