"""A small classifier that reads colour, shape, feature, eyes and action off toy monsters: it judges generated ones."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from tinyldm.data.cache import cache_folder
from tinyldm.data.images import from_bytes
from tinyldm.device import autocast
from tinyldm.files import replacing
from tinyldm.toy import drawing
from tinyldm.toy import monsters as toy
from tinyldm.toy.monsters import ATTRIBUTES, random_monster_images

SIZE = 64  # pixels of the drawings it has learned from


class AttributeNet(nn.Module):
    """A plain convolutional network with a linear head for each attribute."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        layers, before = [], 3
        for k, width in enumerate(widths):
            layers += [
                nn.Conv2d(
                    before,
                    width,
                    5 if k == 0 else 3,
                    stride=2,
                    padding=2 if k == 0 else 1,
                    bias=False,
                ),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            before = width
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(before * 16, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (b, 3, 64, 64) in [-1, 1] to the logits (b, number of values) of each attribute."""
        features = rearrange(self.trunk(images), "b c h w -> b (c h w)")
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: Tensor, chunk: int = 256) -> dict[str, Tensor]:
        """The likeliest value of each attribute, (b,) indices into ATTRIBUTES, of images (b, 3, h, w) in [-1, 1]."""
        self.eval()
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(
                images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
            )
        device = next(self.parameters()).device
        parts = [self(part.to(device)) for part in images.split(chunk)]
        return {
            name: torch.cat([part[name].argmax(1).cpu() for part in parts]) for name in ATTRIBUTES
        }


def accuracy(read: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """The share of the images whose value was read right, for each attribute."""
    return {
        name: (read[name] == torch.as_tensor(truth[name])).double().mean().item() for name in truth
    }


def drawings(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """n fresh toy monsters, uint8 (n, 3, 64, 64), and the indices (n,) of their attributes."""
    images, labels = random_monster_images(n, seed, SIZE)
    return (
        rearrange(torch.from_numpy(images), "n h w c -> n c h w").contiguous(),
        {name: torch.from_numpy(values) for name, values in labels.items()},
    )


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """What a sampled picture may suffer: mirrored, moved by up to 3 pixels, blurred, noisy, a bit off in colour."""
    b = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, 1, generator=generator)

    images = torch.where(uniform(0, 1) < 0.5, images.flip(3), images)
    dx, dy = torch.randint(-3, 4, (2,), generator=generator).tolist()
    images = F.pad(images, (3, 3, 3, 3), value=1.0)[
        :, :, 3 + dy : 3 + dy + SIZE, 3 + dx : 3 + dx + SIZE
    ]
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.lerp(images, blurred, uniform(-0.4, 1).clamp(0))
    images = images * uniform(0.92, 1.05) + uniform(-0.05, 0.05)
    return images + uniform(0, 0.15) * torch.randn(images.shape, generator=generator)


def train_classifier(
    steps: int = 900,
    batch_size: int = 64,
    images: int = 16_000,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
) -> AttributeNet:
    """Train on freshly drawn monsters, for about a minute on two cores; the result is in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pictures, labels = drawings(images, seed=1_000_000 + seed)
    net = AttributeNet().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps, pct_start=0.15)
    bar = tqdm(range(steps), "training the attribute classifier", unit="step", disable=None)
    for _ in bar:
        rows = torch.randint(len(pictures), (batch_size,), generator=generator)
        batch = disturb(from_bytes(pictures[rows]), generator).to(
            device, memory_format=torch.channels_last
        )
        with autocast(device):
            logits = net(batch)
            loss = sum(
                F.cross_entropy(
                    logits[name].float(), labels[name][rows].to(device), label_smoothing=0.02
                )
                for name in ATTRIBUTES
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
    return net.eval()


def version() -> str:
    """A hash of the code that draws, and of this module: a classifier is good for what it was trained on."""
    sources = "".join(
        inspect.getsource(module) for module in (drawing, toy, inspect.getmodule(version))
    )
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def load_classifier(
    device: torch.device = torch.device("cpu"), folder: Path | None = None
) -> AttributeNet:
    """The classifier from the cache folder, trained first (about a minute) if it isn't there."""
    file = (folder or cache_folder() / "attributes") / f"{version()}.safetensors"
    if file.exists():
        net = AttributeNet()
        net.load_state_dict(load_file(file))
        return net.to(device).eval()
    net = train_classifier(device=device)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()},
            temporary,
        )
    return net
