"""A hybrid image: from afar it shows one thing, from near another (2404.11615, by the authors of
2311.17919).

    python docs/examples/hybrid.py RUN "a green ghost" "a red monster with a crown"

The coarse part of what is predicted comes from the one prompt, the fine part from the other. With
L, which lets long waves through alone,

    D(x_t) = L D(x_t, far) + (1 - L) D(x_t, near)
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from tinyldm import Condition
from tinyldm.data.images import grid
from tinyldm.sampling.drawing import Painter, encode_prompts
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen


def coarse(x: Tensor, cut: float) -> Tensor:
    """x (b, c, h, w) without the waves that are shorter than 1 / cut cells."""
    h, w = x.shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.fftfreq(w))  # (h, w)
    return torch.fft.ifft2(torch.fft.fft2(x) * (frequency < cut)).real


def from_afar(image: Image.Image) -> Image.Image:
    """What is left of a picture that is seen a quarter as large, enlarged again."""
    return image.resize((image.width // 4, image.height // 4)).resize(image.size)


@dataclass(frozen=True)
class Hybrid:
    """A value for sample(guidance=...); other: Condition of one row, what is seen from near."""

    guidance: Callable
    other: Condition
    cut: float = 0.15

    def __call__(self, denoiser: Callable) -> Callable:
        guided = self.guidance(denoiser)

        def both(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            near = guided(x_t, t, self.other.expand(len(x_t)))
            return near + coarse(guided(x_t, t, condition) - near, self.cut)

        return both


if __name__ == "__main__":
    run, far, near = sys.argv[1:]
    checkpoint = load_checkpoint(run)
    models, task = load_frozen(checkpoint.config, "cpu"), task_of(checkpoint.config)
    prompts = encode_prompts(models.encoder, [far, near])
    plain = Painter.of(checkpoint, models.vae, task, Drawing(25), device=torch.device("cpu"))
    painter = replace(plain, guidance=Hybrid(plain.guidance, prompts[1:]))
    drawn = painter.draw(prompts[:1].expand(4), range(4))
    grid([*drawn, *map(from_afar, drawn)], columns=4).save("hybrid.png")
    print("hybrid.png shows 4 pictures, and below each what is left of it from afar")
