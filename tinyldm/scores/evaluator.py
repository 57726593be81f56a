"""Evaluators: the trained judge of a task. It reads labels or maps off pictures, drawn or real.

An evaluator is trained on the real images of a data folder, measured on some that were held out,
and saved as config.json with model.safetensors. Which network it is, its loss and its scores are
the task's: see Judge in tasks/base.py and the two judges in tasks/judges.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.data.examples import Examples, Prompt, held_out_subjects
from tinyldm.data.images import from_bytes
from tinyldm.errors import InputError
from tinyldm.files import replacing_files
from tinyldm.folders import Kind
from tinyldm.installation import called
from tinyldm.scores import classifier
from tinyldm.scores.files import read_pixels
from tinyldm.tasks.base import Judge, find_task
from tinyldm.typed import SEAL, Index, Limits, Side, as_type, read_json, sealed, unsealed
from tinyldm.weights import load_into, read_weights, weights_hash, write_weights

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Facts:
    """What config.json of an evaluator holds; see Evaluator.

    hash, checksum: of its weights and of these facts; the first evaluators have none
    """

    task: str
    names: Annotated[tuple[str, ...], Limits(min_length=1)]
    size: tuple[Side, Side]
    images: Index
    held_out: dict[str, float] | None
    hash: str | None = None
    checksum: str | None = None


def has_evaluator(folder: Path) -> bool:
    """Whether a folder holds an evaluator."""
    try:
        read_json(folder / CONFIG, Facts)
    except InputError:
        return False
    return True


EVALUATOR = Kind("evaluator", r"config\.json|model\.safetensors", known=has_evaluator)


@dataclass(frozen=True)
class Evaluator:
    """A trained judge of a task's pictures.

    names:    of the labels or classes that it tells apart
    size:     (h, w) of the images that it looks at
    held_out: its scores on real images of scenes that it was not trained on
    images:   how many those are
    """

    task: str
    net: nn.Module
    names: tuple[str, ...]
    size: tuple[int, int]
    images: int = 0
    held_out: dict[str, float] | None = None

    @property
    def judge(self) -> Judge:
        """What the task says about its judge."""
        return find_judge(self.task, self.names)

    @property
    def version(self) -> str:
        """A short hash of the weights."""
        return weights_hash(self.net.state_dict())[:8]

    @torch.inference_mode()
    def logits(self, images: Tensor, chunk: int = 64) -> Tensor:
        """uint8 images (n, 3, h, w) of the evaluator's size -> logits in float32 on the CPU."""
        device = next(self.net.parameters()).device
        parts = []
        for part in images.split(chunk):
            logits = self.net(from_bytes(part.to(device)))
            parts.append(logits.float().cpu())
        return torch.cat(parts)

    def scores(self, images: Tensor, truth: Tensor) -> dict[str, float]:
        """How well uint8 images (n, 3, h, w) show the truth, as Judge.truth returns it."""
        logits = self.logits(images)
        return {name: score(logits, truth) for name, score in self.judge.scores.items()}

    def judged(self, files: Sequence[Path], prompts: Sequence[Prompt]) -> dict:
        """The scores of image files drawn from prompts, beside those of real images held out."""
        truth = self.judge.truth(prompts, self.size, None)
        found = self.scores(read_pixels(files, self.size), truth)
        h, w = self.size
        return {
            "n": len(files),
            "extractor": f"{type(self.net).__name__} {self.version}",
            "preprocessing": f"squashed to {w}x{h} (Pillow, bicubic)",
            "value": next(iter(found.values())),
            "generated": found,
            f"{self.images} real images, held out": self.held_out,
        }

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors, together or not at all."""
        names = [f.name for f in fields(Facts) if f.name not in ("hash", SEAL)]
        facts = {name: getattr(self, name) for name in names}
        facts["hash"] = weights_hash(self.net.state_dict())
        with replacing_files(folder) as draft:
            write_weights(draft / WEIGHTS, self.net.state_dict())
            (draft / CONFIG).write_text(json.dumps(sealed(facts), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Evaluator:
        """The inverse of save; InputError where a file is missing or is not an evaluator's."""
        file = Path(folder) / CONFIG
        wrong = f"not an evaluator; train one with {called('python -m tinyldm')} evaluator train"
        content = read_json(file, dict[str, Any], wrong=wrong)
        facts = as_type(content, str(file), Facts, wrong=wrong)
        unsealed(content, str(file))
        try:
            net = find_judge(facts.task, facts.names).network(len(facts.names))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        weights = Path(folder) / WEIGHTS
        load_into(net, read_weights(weights), weights)
        given = {name: value for name, value in vars(facts).items() if name != SEAL}
        if given.pop("hash") not in (None, weights_hash(net.state_dict())):
            raise InputError(f"{weights}: damaged: not what was written with its {CONFIG}")
        return cls(net=net.to(device).eval(), **given)


def find_judge(task: str, names: tuple[str, ...]) -> Judge:
    """The judge of a task, named as for --task; InputError where it has none."""
    judge = find_task(task).judge(names)
    if judge is None:
        raise InputError(f"--task {task}: its pictures are not judged by an evaluator")
    return judge


def disturb(images: Tensor, truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (b, 3, h, w) as training shows them: moved, mirrored, a little blurred and noisy.

    All images of a batch are mirrored or not, and moved by up to 2 pixels; a truth that consists
    of maps (b, h, w) moves with them. Blur and noise, which drawn images have, differ from image
    to image.
    """
    chance, across, down = torch.rand(3, generator=generator).tolist()
    shift = (int(5 * down) - 2, int(5 * across) - 2)

    def moved(x: Tensor) -> Tensor:
        if chance < 0.5:
            x = x.flip(-1)
        return x.roll(shift, (-2, -1))

    images = moved(images)
    if truth.ndim == 3:
        truth = moved(truth)
    blur, noise = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    soft = F.avg_pool2d(padded, 3, stride=1)
    images = torch.lerp(images, soft, 0.7 * blur)
    images = images + 0.03 * noise * torch.randn(images.shape, generator=generator)
    return images, truth


def train_evaluator(
    task: str,
    examples: Examples,
    size: tuple[int, int],
    steps: int | None = None,
    batch_size: int | None = None,
    *,
    lr: float = 2e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Evaluator:
    """Train a judge on the examples of a data folder and measure it on the scenes held out.

    task: as --task names it; size: (h, w) that images are squashed to
    steps, batch_size: None for what the judge suggests
    InputError: a task without a judge; images or maps that are missing or broken; too few scenes.
    """
    judge = find_judge(task, examples.names)
    steps = steps or judge.steps
    batch_size = batch_size or judge.batch_size
    if batch_size < 2:
        raise InputError(f"--batch-size {batch_size}: expected 2 or more, for batch norm")

    files = [example.image for example in examples]
    pixels = read_pixels(files, size)
    truth = judge.truth([example.prompts[0] for example in examples], size, files)
    held_out = torch.tensor(
        held_out_subjects([file.name for file in files], examples.layout.subject)
    )
    if held_out.all() or not held_out.any():
        raise InputError(f"{len(files)} images: too few scenes to hold some of them out")
    seen = (~held_out).nonzero()[:, 0]

    def draw_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = seen[torch.randint(len(seen), (batch_size,), generator=generator)]
        return disturb(from_bytes(pixels[rows]), truth[rows], generator)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        return judge.loss(logits.float(), wanted)

    torch.manual_seed(seed)
    net = judge.network(len(examples.names)).to(device)
    classifier.train(net, draw_batch, loss, steps=steps, lr=lr, seed=seed, title="evaluator")
    evaluator = Evaluator(task, net, examples.names, size, images=int(held_out.sum()))
    return replace(evaluator, held_out=evaluator.scores(pixels[held_out], truth[held_out]))
