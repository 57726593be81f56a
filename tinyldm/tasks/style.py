"""A reference image -> tokens: what the image tower of a frozen CLIP sees in each of its patches."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from tinyldm.data.transforms import from_bytes, resize, to_bytes
from tinyldm.frozen.image import pixel_statistics
from tinyldm.frozen.loading import load_pretrained, load_weights
from tinyldm.frozen.text import resolve

NAMES = ("image encoder", "--image-encoder")
OTHER_PARTS = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


class StyleEncoder:
    """The image tower of a CLIP: a token of the whole image and one for each patch, all through its last norm."""

    def __init__(self, model, mean, std):
        self.model, self.width = model, model.config.hidden_size
        self.mean, self.std = (torch.tensor(v, device=model.device)[:, None, None] for v in (mean, std))

    @classmethod
    def load(cls, name: str, device="cpu") -> StyleEncoder:
        """A folder or hub name of a CLIP, or "tiny"; strict about weights."""
        from transformers import CLIPVisionModel

        source = resolve(name)
        model = load_weights(CLIPVisionModel, source, *NAMES, OTHER_PARTS).to(device)
        settings = load_pretrained(pixel_statistics, source, *NAMES)
        return cls(model, settings["image_mean"], settings["image_std"])

    @torch.no_grad()
    def encode(self, images: list[Image.Image]) -> Tensor:
        """RGB images of any sizes, squashed to the tower's own: (b, 1 + patches, width) float32."""
        size = self.model.config.image_size
        pixels = from_bytes(torch.stack([to_bytes(resize(image, size)) for image in images])).to(self.model.device)
        states = self.model(pixel_values=(pixels / 2 + 0.5 - self.mean) / self.std).last_hidden_state
        tower = getattr(self.model, "vision_model", self.model)
        return tower.post_layernorm(states).float()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        notes = ("_name_or_path", "transformers_version")
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in notes}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for key, weight in sorted(self.model.state_dict().items()):
            digest.update(key.encode() + weight.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
