"""A reference image -> tokens: what the image tower of a frozen CLIP sees, and colours."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinyldm.data.images import from_bytes, resize, to_bytes
from tinyldm.frozen.hub import Role
from tinyldm.frozen.image import pixel_statistics, statistics_as_json
from tinyldm.frozen.known import OnDemand
from tinyldm.frozen.loading import fingerprint, load_model, resolve

ROLE = Role("image encoder", "--image-encoder")
OTHER_PARTS = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
FORM = "colours of quarters"  # what the tokens are made of, for the fingerprint
COLOURS = 12  # numbers at the end of each token: 3 colours of each of 4 quarters


class StyleEncoder:
    """The image tower of a CLIP: one token for the whole image and one for each patch.

    Each token is what the tower sees, through its last norm, and then 12 numbers: the mean colours
    of the patch's four quarters, in the tower's units; for the whole image, their mean over all
    patches. The norms of the tower take away how bright and how saturated a patch is, and the
    colours bring that back.

    width: of the tokens
    """

    def __init__(self, model: Any, mean: Any, std: Any):
        self.model = model
        self.width: int = model.config.hidden_size + COLOURS
        self.mean = torch.as_tensor(mean, device=model.device).view(3, 1, 1)
        self.std = torch.as_tensor(std, device=model.device).view(3, 1, 1)
        # Some versions of transformers wrap the tower in a module, so that names begin differently.
        modules = {name.rpartition(".")[2]: module for name, module in model.named_modules()}
        self.last_norm = modules["post_layernorm"]

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu") -> StyleEncoder:
        """The image tower of a CLIP in a folder or under a hub name, or of "tiny"; strict."""
        from transformers import CLIPVisionModel

        source = resolve(name)
        model = load_model(CLIPVisionModel, source, ROLE, OTHER_PARTS).to(device)
        mean, std = pixel_statistics(source, ROLE)
        return cls(model, mean, std)

    @torch.no_grad()
    def encode(self, images: list[Image.Image]) -> Tensor:
        """RGB images of any sizes, squashed to the tower's own: (b, 1 + patches, width) float32."""
        config = self.model.config
        pixels = torch.stack([to_bytes(resize(image, config.image_size)) for image in images])
        pixels = from_bytes(pixels.to(self.model.device)) / 2 + 0.5  # (b, 3, s, s) in [0, 1]
        pixels = (pixels - self.mean) / self.std

        states = self.model(pixel_values=pixels).last_hidden_state
        states = self.last_norm(states).float()  # (b, 1 + patches, width - 12)

        patches = config.image_size // config.patch_size  # along each side
        halves = F.adaptive_avg_pool2d(pixels, 2 * patches)  # (b, 3, 2 patches, 2 patches)
        quarters = F.pixel_unshuffle(halves, 2).flatten(2).mT  # (b, patches^2, 12)
        colours = torch.cat([quarters.mean(dim=1, keepdim=True), quarters], dim=1)
        return torch.cat([states, colours], dim=2)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of configuration, weights and pixel statistics, and of the colours' form."""
        return fingerprint(self.model, FORM, statistics_as_json(self.mean, self.std))

    @cached_property
    def former_fingerprint(self) -> str:
        """What the first versions recorded, which left out the statistics of the pixels."""
        return fingerprint(self.model, FORM)


class StyleEncoderOnDemand(OnDemand[StyleEncoder]):
    """A StyleEncoder that is loaded when it first encodes."""

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        super().__init__(lambda: StyleEncoder.load(name, device), resolve(name), ROLE, ("style",))

    def encode(self, images: list[Image.Image]) -> Tensor:
        """StyleEncoder.encode."""
        return self.loaded.encode(images)
