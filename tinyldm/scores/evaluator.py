"""Networks that judge pictures: they read labels or a segmentation map off a picture, and are trained on real ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from tinyldm.autoencoder.published import read_weights
from tinyldm.data.cache import key_of
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.device import autocast
from tinyldm.errors import InputError
from tinyldm.files import read_json, replacing
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.tasks.labels import truth as label_truth
from tinyldm.tasks.landscape import load_map, parts

WEIGHTS = "model.safetensors"
WHOLES = {
    "monsters": "[^_]+",
    "labels": r"CLEVR_\w+?_\d+",
}  # layout: what the names of alike images have in common


class Block(nn.Module):
    """Two convolutions and the way past them (1512.03385, fig. 5 left): (b, c, h, w) -> (b, width, h/s, w/s)."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.past = (
            nn.Conv2d(width_in, width, 1, stride)
            if stride > 1 or width != width_in
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.past(x))


class LabelNet(nn.Module):
    """A ResNet of one block a level, a fraction of ResNet18: images (b, 3, h, w) in [-1, 1] -> logits (b, labels)."""

    def __init__(self, labels: int, widths: tuple[int, ...] = (32, 64, 128, 192)):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = list(zip((widths[0], *widths), widths))
        self.blocks = nn.Sequential(*(Block(a, b, 2) for a, b in pairs))
        self.head = nn.Linear(widths[-1], labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def top_k_accuracy(logits: Tensor, wanted: Tensor) -> float:
    """The assignment's score: the share of all wanted labels (b, n) bool found among the top k of logits (b, n).

    k is each image's number of labels; the sums over the images are divided, not averaged; an image without labels
    counts nothing.
    """
    found = _top(logits, wanted) & wanted
    return found.sum().item() / max(int(wanted.sum()), 1)


def exact_accuracy(logits: Tensor, wanted: Tensor) -> float:
    """The share of images whose top k labels are just those wanted."""
    return (_top(logits, wanted) == wanted).all(1).double().mean().item()


def _top(logits: Tensor, wanted: Tensor) -> Tensor:
    """Whether a label is among the top k of its image: (b, n) bool."""
    rank = logits.argsort(1, descending=True).argsort(1)
    return rank < wanted.sum(1, keepdim=True)


def class_accuracy(logits: Tensor, maps: Tensor) -> float:
    """The share of the pixels whose likeliest class, of logits (b, classes, h, w), is that of the maps (b, h, w)."""
    return (logits.argmax(1) == maps).double().mean().item()


class MapNet(UNet):
    """A small UNet without attention, told no time: images (b, 3, h, w) in [-1, 1] -> logits (b, classes, h, w)."""

    def __init__(self, classes: int):
        super().__init__(
            UNetConfig(
                in_channels=3,
                out_channels=classes,
                channels=(24, 48, 96),
                attention="none",
                middle="none",
                blocks=1,
                groups=8,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images, 0.0)


@dataclass(frozen=True)
class Kind:
    """What a task asks of its evaluator: a network, a loss of logits and truth, and the scores, name -> function."""

    net: Callable[[int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    scores: dict[str, Callable[[Tensor, Tensor], float]]
    length: tuple[int, int]  # of a training: steps, images a step


KINDS = {
    "labels": Kind(
        LabelNet,
        lambda logits, wanted: F.binary_cross_entropy_with_logits(logits, wanted.float()),
        {"top-k": top_k_accuracy, "all right": exact_accuracy},
        (2500, 64),
    ),
    "landscape": Kind(
        MapNet,
        lambda logits, maps: F.cross_entropy(logits, maps.long()),
        {"pixels": class_accuracy},
        (1000, 32),
    ),
}


@dataclass(frozen=True)
class Evaluator:
    """A trained network and what it knows: the names of labels or classes, and the size of its images (h, w).

    held_out: its scores on real images of scenes that it was not trained on; images: how many those are
    """

    task: str
    net: nn.Module
    names: tuple[str, ...]
    size: tuple[int, int]
    images: int = 0
    held_out: dict | None = None

    @torch.inference_mode()
    def logits(self, images: Tensor, chunk: int = 64) -> Tensor:
        """uint8 images (n, 3, h, w) of its size -> logits in float32."""
        device = next(self.net.parameters()).device
        return torch.cat(
            [self.net(from_bytes(part.to(device))).float().cpu() for part in images.split(chunk)]
        )

    def scores(self, images: Tensor, truth: Tensor) -> dict[str, float]:
        """How well uint8 images (n, 3, h, w) show the truth: labels (n, labels) bool, or maps (n, h, w) uint8."""
        logits = self.logits(images)
        return {name: score(logits, truth) for name, score in KINDS[self.task].scores.items()}

    @property
    def version(self) -> str:
        """A hash of its weights."""
        return key_of([[name, t.sum().item()] for name, t in self.net.state_dict().items()])[:8]

    def save(self, folder: Path) -> None:
        """config.json and model.safetensors, each whole or absent."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as temporary:
            save_file(
                {name: t.cpu().contiguous() for name, t in self.net.state_dict().items()}, temporary
            )
        facts = {
            name: getattr(self, name) for name in ("task", "names", "size", "images", "held_out")
        }
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device="cpu") -> Evaluator:
        """The inverse of save; InputError where a file is missing or says something else."""
        file = Path(folder) / "config.json"
        facts = read_json(file, dict)
        if (
            facts.get("task") not in KINDS
            or facts.keys() | {"net"} != cls.__dataclass_fields__.keys()
        ):
            raise InputError(
                f"{file}: not an evaluator; train one with python -m tinyldm evaluator train"
            )
        net = KINDS[facts["task"]].net(len(facts["names"]))
        shapes = {name: tuple(t.shape) for name, t in net.state_dict().items()}
        net.load_state_dict(read_weights(Path(folder) / WEIGHTS, shapes))
        return cls(
            net=net.to(device).eval(),
            **facts | {"names": tuple(facts["names"]), "size": tuple(facts["size"])},
        )


def read_pixels(files: list[Path], size: tuple[int, int]) -> Tensor:
    """Image files squashed to (h, w), as uint8 (n, 3, h, w)."""
    bar = tqdm(files, "reading images", unit="image", disable=len(files) < 500)
    return torch.stack([to_bytes(resize(load_image(file), size)) for file in bar])


def split(names: list[str], layout: str = "", share: float = 0.1) -> Tensor:
    """Which images of a data folder are held out, (n,) bool: every so many-th, those of one scene or monster together."""
    whole = re.compile(WHOLES.get(layout, "(?!)"))  # that matches nothing: each image for itself
    scenes = [(whole.match(name) or [f"{k:08d}"])[0] for k, name in enumerate(names)]
    held = set(sorted(set(scenes))[:: max(2, round(1 / share))])
    return torch.tensor([scene in held for scene in scenes])


def disturb(images: Tensor, truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (b, 3, h, w) and their maps, if truth is that, mirrored by chance and moved by up to 2 pixels.

    Then the images become a little blurred and noisy, as drawn ones are.
    """
    chance, dx, dy = torch.rand(3, generator=generator).tolist()
    turned = []
    for x in (images, truth) if truth.ndim == 3 else (images,):
        x = x.flip(-1) if chance < 0.5 else x
        turned.append(x.roll((int(5 * dy) - 2, int(5 * dx) - 2), (-2, -1)))
    images, truth = turned[0], turned[-1] if truth.ndim == 3 else truth
    blur, noise = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.lerp(images, soft, 0.7 * blur)
    return images + 0.03 * noise * torch.randn(images.shape, generator=generator), truth


def truth_of(
    task: str, texts: list[str], names: tuple[str, ...], size: tuple[int, int], own: bool = False
) -> Tensor:
    """What texts ask for: labels (n, labels) bool, or maps (n, *size) uint8; own: references are the maps' images."""
    if task == "labels":
        return label_truth(texts, names)
    maps = (resize(load_map(*parts(text)[: 1 + own]), size, nearest=True) for text in texts)
    return torch.stack([torch.from_numpy(np.array(scene)) for scene in maps])


def train_evaluator(
    examples,
    size: tuple[int, int],
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float = 2e-3,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
) -> Evaluator:
    """Train on the examples of a folder but for the scenes held out, and measure on those."""
    torch.manual_seed(seed)
    generator, kind = torch.Generator().manual_seed(seed), KINDS[examples.task]
    steps, batch_size = steps or kind.length[0], batch_size or kind.length[1]
    pixels = read_pixels([example.image for example in examples], size)
    truth = truth_of(
        examples.task, [example.captions[0] for example in examples], examples.names, size, own=True
    )
    if (held := split([e.name for e in examples], examples.format)).all() or not held.any():
        raise InputError(f"{len(examples)} images: too few scenes to hold some of them out")
    seen, net = (~held).nonzero()[:, 0], kind.net(len(examples.names)).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    bar = tqdm(range(steps), "evaluator", unit="step")
    for step in bar:
        rows = seen[torch.randint(len(seen), (batch_size,), generator=generator)]
        images, wanted = disturb(from_bytes(pixels[rows]), truth[rows], generator)
        with autocast(device):
            logits = net(images.to(device))
        loss = kind.loss(logits.float(), wanted.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
    evaluator = Evaluator(examples.task, net.eval(), examples.names, size, int(held.sum()))
    return replace(evaluator, held_out=evaluator.scores(pixels[held], truth[held]))


def judged(evaluator: Evaluator, files, texts: list[str]) -> dict:
    """The scores of image files that were drawn from texts, with those of real images beside them."""
    truth = truth_of(evaluator.task, texts, evaluator.names, evaluator.size)
    found = evaluator.scores(read_pixels(files, evaluator.size), truth)
    return {
        "n": len(files),
        "extractor": f"{type(evaluator.net).__name__} {evaluator.version}",
        "preprocessing": f"squashed to {evaluator.size[1]}x{evaluator.size[0]} (Pillow, bicubic)",
        "value": next(iter(found.values())),
        "generated": found,
        f"{evaluator.images} real images, held out": evaluator.held_out,
    }


def histogram(image: Tensor, bins: int = 8) -> Tensor:
    """How many pixels of a uint8 image (3, h, w) fall into each of bins^3 boxes of colours."""
    red, green, blue = image.long().flatten(1) * bins // 256
    return torch.bincount((red * bins + green) * bins + blue, minlength=bins**3)


def style_likeness(a: Tensor, b: Tensor) -> float:
    """The correlation of the colour histograms of two uint8 images (3, h, w) of any sizes, -1 to 1."""
    return torch.corrcoef(torch.stack([histogram(a), histogram(b)]).double())[0, 1].item()


def style_scores(files, texts: list[str]) -> dict:
    """How like in colour drawn landscapes are to their references, and to those of others: of the next one listed."""
    drawn = [to_bytes(load_image(file)) for file in files]
    references = [to_bytes(load_image(parts(text)[1])) for text in texts]
    each = {"own": references, "another's": references[1:] + references[:1]}
    found = {
        name: sum(map(style_likeness, drawn, others)) / len(drawn) for name, others in each.items()
    }
    return {
        "n": len(drawn),
        "extractor": "colour histograms, 8x8x8, correlation",
        "preprocessing": "none",
        "value": found["own"],
        "reference": found,
    }
