"""A visual anagram (2311.17919): a picture that shows one thing, and upside down another.

    python docs/examples/anagram.py RUN "a green ghost" "a red monster with a crown"

Each view V_i of x_t is denoised with a prompt c_i of its own, and what they predict, turned back,
is averaged, over V_1 = 1 and V_2, half a turn:

    D(x_t) = mean over i of V_i^-1 D(V_i x_t, c_i)

A view has to be linear and orthogonal, so that alpha x0 + sigma eps is seen as such.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tinyldm import Condition
from tinyldm.data.images import grid
from tinyldm.sampling.drawing import Painter, encode_prompts
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen


@dataclass(frozen=True)
class Anagram:
    """A value for sample(guidance=...): the guidance that both views have, and the second prompt.

    guidance: such as Guidance; other: Condition of one row, what is seen upside down
    """

    guidance: Callable
    other: Condition

    def __call__(self, denoiser: Callable) -> Callable:
        guided = self.guidance(denoiser)

        def both(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            upright = guided(x_t, t, condition)
            turned = guided(x_t.rot90(2, (-2, -1)), t, self.other.expand(len(x_t)))
            return (upright + turned.rot90(2, (-2, -1))) / 2

        return both


if __name__ == "__main__":
    run, first, second = sys.argv[1:]
    checkpoint = load_checkpoint(run)
    models, task = load_frozen(checkpoint.config, "cpu"), task_of(checkpoint.config)
    prompts = encode_prompts(models.encoder, [first, second])
    plain = Painter.of(checkpoint, models.vae, task, Drawing(25), device=torch.device("cpu"))
    painter = replace(plain, guidance=Anagram(plain.guidance, prompts[1:]))
    drawn = painter.draw(prompts[:1].expand(4), range(4))
    grid([*drawn, *(picture.rotate(180) for picture in drawn)], columns=4).save("anagram.png")
    print("anagram.png shows 4 pictures, and below each the same upside down")
