"""A reference image -> tokens: what the image tower of a frozen CLIP sees in each of its patches, and their colours."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinyldm.data.images import from_bytes, resize, to_bytes
from tinyldm.frozen.image import pixel_statistics
from tinyldm.frozen.loading import fingerprint, load_pretrained, load_weights
from tinyldm.frozen.text import resolve

NAMES = ("image encoder", "--image-encoder")
OTHER_PARTS = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


class StyleEncoder:
    """The image tower of a CLIP: a token of the whole image and one for each patch, all through its last norm.

    The tower's norms take away how bright and how strong in colour a patch is, so each token ends with the mean colours
    of the patch's four quarters, in the tower's units: 12 numbers; the first with those of all patches.
    """

    def __init__(self, model, mean, std):
        self.model, self.width = model, model.config.hidden_size + 12
        self.mean, self.std = (
            torch.tensor(v, device=model.device)[:, None, None] for v in (mean, std)
        )

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
        config, tower = self.model.config, getattr(self.model, "vision_model", self.model)
        pixels = torch.stack([to_bytes(resize(image, config.image_size)) for image in images]).to(
            self.model.device
        )
        pixels = (from_bytes(pixels) / 2 + 0.5 - self.mean) / self.std
        states = tower.post_layernorm(self.model(pixel_values=pixels).last_hidden_state).float()
        halves = F.adaptive_avg_pool2d(
            pixels, 2 * (config.image_size // config.patch_size)
        )  # of patches, each way
        quarters = F.pixel_unshuffle(halves, 2).flatten(2).mT  # (b, patches, 12)
        return torch.cat([states, torch.cat([quarters.mean(1, keepdim=True), quarters], 1)], 2)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        return fingerprint(self.model, "colours of quarters")
