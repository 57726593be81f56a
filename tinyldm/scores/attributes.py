"""Reads colour, shape, feature, eyes and action off pictures of toy monsters, to judge drawn ones.

The classifier is trained on fresh drawings the first time it is needed, for about a minute, and
kept in the cache folder under a hash of the code that draws.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tinyldm.data.cache import cache_folder
from tinyldm.data.images import from_bytes
from tinyldm.scores import classifier
from tinyldm.toy import drawing, monsters
from tinyldm.toy.monsters import ATTRIBUTES, random_monster_images
from tinyldm.weights import load_into, read_weights, write_weights

SIZE = 64  # pixels of the drawings that it learns from


class AttributeNet(nn.Module):
    """A plain convolutional network with a linear head for each attribute."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for level, width in enumerate(widths):
            kernel = 5 if level == 0 else 3
            down = nn.Conv2d(before, width, kernel, 2, padding=kernel // 2, bias=False)
            same = nn.Conv2d(width, width, 3, padding=1, bias=False)
            layers += [down, nn.BatchNorm2d(width), nn.ReLU()]
            layers += [same, nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.trunk = nn.Sequential(*layers)
        features = before * (SIZE // 2 ** len(widths)) ** 2
        self.heads = nn.ModuleDict(
            {name: nn.Linear(features, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (b, 3, 64, 64) in [-1, 1] -> for each attribute logits (b, number of values)."""
        features = rearrange(self.trunk(images), "b c h w -> b (c h w)")
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: Tensor, chunk: int = 256) -> dict[str, Tensor]:
        """The likeliest value of each attribute in images (b, 3, h, w) of any size, in [-1, 1].

        Returns indices (b,) into the values of ATTRIBUTES.
        """
        self.eval()
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(
                images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
            )
        device = next(self.parameters()).device
        parts = [self(part.to(device)) for part in images.split(chunk)]
        found = {}
        for name in ATTRIBUTES:
            found[name] = torch.cat([part[name].argmax(1).cpu() for part in parts])
        return found


def accuracy(found: Mapping[str, Tensor], truth: Mapping) -> dict[str, float]:
    """For each attribute, the share of the images whose value was found right."""
    shares = {}
    for name, values in truth.items():
        right = found[name] == torch.as_tensor(values)
        shares[name] = right.double().mean().item()
    return shares


def drawings(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """n fresh toy monsters, uint8 (n, 3, 64, 64), and the indices (n,) of their attributes."""
    images, labels = random_monster_images(n, seed, SIZE)
    pictures = rearrange(torch.from_numpy(images), "n h w c -> n c h w").contiguous()
    return pictures, {name: torch.from_numpy(values) for name, values in labels.items()}


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """What may happen to a sampled picture, done to images (b, 3, 64, 64) in [-1, 1].

    Each is mirrored or not, blurred or not, a bit off in contrast and brightness, and noisy; all
    are moved alike, by up to 3 pixels.
    """
    b = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, 1, generator=generator)

    images = torch.where(uniform(0, 1) < 0.5, images.flip(3), images)
    dx, dy = torch.randint(-3, 4, (2,), generator=generator).tolist()
    padded = F.pad(images, (3, 3, 3, 3), value=1.0)
    images = padded[:, :, 3 + dy : 3 + dy + SIZE, 3 + dx : 3 + dx + SIZE]
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.lerp(images, blurred, uniform(-0.4, 1).clamp(0))
    images = images * uniform(0.92, 1.05) + uniform(-0.05, 0.05)
    return images + uniform(0, 0.15) * torch.randn(images.shape, generator=generator)


def train_classifier(
    steps: int = 900,
    batch_size: int = 64,
    images: int = 16_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> AttributeNet:
    """An AttributeNet trained on freshly drawn monsters, in about a minute on two cores."""
    pictures, labels = drawings(images, seed=1_000_000 + seed)
    truth = torch.stack([labels[name] for name in ATTRIBUTES], 1)  # (n, attributes)

    def draw_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(pictures), (batch_size,), generator=generator)
        images = disturb(from_bytes(pictures[rows]), generator)
        return images.contiguous(memory_format=torch.channels_last), truth[rows]  # faster

    def loss(logits: dict[str, Tensor], wanted: Tensor) -> Tensor:
        total = torch.zeros((), device=wanted.device)
        for name, values in zip(ATTRIBUTES, wanted.unbind(1), strict=True):
            total = total + F.cross_entropy(logits[name].float(), values, label_smoothing=0.02)
        return total

    torch.manual_seed(seed)
    net = AttributeNet().to(device)
    title = "training the attribute classifier"
    classifier.train(
        net, draw_batch, loss, steps=steps, lr=4e-3, warmup=0.15, seed=seed, title=title
    )
    return net


def version() -> str:
    """A hash of the code that draws and trains: what a kept classifier is good for."""
    modules = (drawing, monsters, classifier, sys.modules[__name__])
    sources = "".join(inspect.getsource(module) for module in modules)
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def load_classifier(device: torch.device | str = "cpu", folder: Path | None = None) -> AttributeNet:
    """The classifier from a folder (by default in the cache), trained first if it is not there."""
    if folder is None:
        folder = cache_folder() / "attributes"
    file = folder / f"{version()}.safetensors"
    if file.exists():
        net = AttributeNet()
        load_into(net, read_weights(file), file)
        return net.to(device).eval()
    net = train_classifier(device=device)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(file, net.state_dict())
    return net
