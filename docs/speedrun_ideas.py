"""Ideas from papers for the speed run that need code: python docs/speedrun.py --idea NAME.

An idea changes a trainer before it starts. Shapes of the network are presets with a name of their
own, such as --preset "toy, attention everywhere".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.diffusion.loss import prediction_error
from tinyldm.diffusion.prediction import target
from tinyldm.frozen.image import ClipScorer
from tinyldm.nn.unet import UNet
from tinyldm.training import trainer as training
from tinyldm.training.frozen_models import FrozenModels
from tinyldm.training.presets import PRESETS
from tinyldm.training.trainer import Trainer

TOY = PRESETS["toy"]
SHAPES = {
    "toy, attention everywhere": replace(TOY, attention="cross"),
    "toy, 128-128-128": replace(TOY, channels=(128, 128, 128)),
    "toy, two at 8x8": replace(TOY, blocks=(1, 2, 1)),
}
PRESETS.update(SHAPES)


class Patched(UNet):
    """A UNet whose first level sees patches of 2: (b, c, 16, 16) is (b, 4 c, 8, 8) to it."""

    def forward(self, x, t, condition=None):
        patches = F.pixel_unshuffle(x, 2)
        return F.pixel_shuffle(super().forward(patches, t, condition), 2)


def patched(channels, size, token_dim, vector_dim, map_channels) -> Patched:
    """--network speedrun_ideas:patched, of about as many FLOPs as the preset toy."""
    config = replace(
        TOY,
        in_channels=4 * channels,
        out_channels=4 * channels,
        channels=(144, 192),
        attention="cross",
        blocks=2,
        heads=4,
        depth=1,
        token_dim=token_dim or None,
        vector_dim=vector_dim or None,
    )
    return Patched(config)


class Hidden:
    """What a module returned last; the first of it, if it returns several."""

    def __init__(self, module: nn.Module):
        self.value = torch.empty(0)
        module.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: object, output: Tensor | list[Tensor]) -> None:
        self.value = output if isinstance(output, Tensor) else output[0]


def usual_error(trainer, denoiser, noised, condition) -> Tensor:
    """The error (b,) that training minimises without an idea."""
    predicted = denoiser(noised.x_t, noised.t.float(), condition)
    prediction = trainer.settings.prediction
    return prediction_error(predicted, noised, prediction, trainer.schedule)


def contrastive(trainer: Trainer, models: FrozenModels) -> None:
    """Contrastive flow matching (2506.05350): away from the target of another sample, by 0.05."""

    def objective(denoiser, noised, condition, done):
        predicted = denoiser(noised.x_t, noised.t.float(), condition)
        wanted = target(noised.x0, noised.eps, noised.level, trainer.settings.prediction)
        right = (predicted - wanted).square().flatten(1).mean(1)
        wrong = (predicted - wanted.roll(1, 0)).square().flatten(1).mean(1)
        return right - 0.05 * wrong

    trainer.objective = objective


def dispersive(trainer: Trainer, models: FrozenModels) -> None:
    """Dispersive loss (2506.09027): what the middle makes of a batch's samples is spread apart.

    log of the mean of exp(-d / 0.5), d the mean squared distance of two samples; its weight is 0.5.
    """
    hidden = Hidden(trainer.network.mid_block)

    def objective(denoiser, noised, condition, done):
        error = usual_error(trainer, denoiser, noised, condition)
        z = hidden.value.flatten(1)
        distance = torch.cdist(z, z).square() / z.shape[1]
        return error + 0.5 * (torch.logsumexp(-distance.flatten() / 0.5, 0) - 2 * math.log(len(z)))

    trainer.objective = objective


def aligned(trainer: Trainer, models: FrozenModels) -> None:
    """REPA (2410.06940): the layers at 8x8 guess what the tiny CLIP sees in the picture.

    A perceptron projects each position onto the 8x8 patches that CLIP's image tower returns; the
    loss is 0.5 times one minus the cosine. The pictures come from the latents, by the decoder.
    For one process, without --accumulate.
    """
    hidden = Hidden(trainer.network.down_blocks[1])
    clip = ClipScorer.load("tiny")
    width = trainer.network.config.channels[1]
    project = nn.Sequential(nn.Linear(width, 256), nn.SiLU(), nn.Linear(256, 128))
    optimizer = torch.optim.AdamW(project.parameters(), lr=1e-3)

    @torch.no_grad()
    def seen(x0: Tensor) -> Tensor:
        pixels = models.vae.decode(x0 * trainer.cache.std + trainer.cache.mean)
        shown = ((pixels + 1) / 2 - clip.mean) / clip.std
        return clip.model.vision_model(pixel_values=shown).last_hidden_state[:, 1:]

    def objective(denoiser, noised, condition, done):
        if project[0].weight.grad is not None:  # of the step before
            optimizer.step()
            optimizer.zero_grad()
        error = usual_error(trainer, denoiser, noised, condition)
        guessed = project(hidden.value.flatten(2).transpose(1, 2))
        likeness = F.cosine_similarity(guessed, seen(noised.x0), dim=-1)
        return error + 0.5 * (1 - likeness.mean(1))

    trainer.objective = objective


def spread(trainer: Trainer, models: FrozenModels) -> None:
    """Logit-normal times whose quantiles are spread evenly over a batch."""

    def draw(how, n, timesteps, generator):
        u = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
        u = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6)).sigmoid()
        return (u * timesteps).long().clamp(max=timesteps - 1)

    training.draw_timesteps = draw


def growing(trainer: Trainer, models: FrozenModels) -> None:
    """The first 45 % of the steps learn from half of each batch."""
    whole = trainer.batch

    def batch(position):
        x0, condition, generator = whole(position)
        if trainer.progress.step < 0.45 * trainer.settings.max_steps:
            half = len(x0) // 2
            x0, condition = x0[:half], condition.map(lambda part: part[:half])
        return x0, condition, generator

    trainer.batch = batch


Idea = Callable[[Trainer, FrozenModels], None]

OBJECTIVES: dict[str, Idea] = {
    "contrastive": contrastive,
    "dispersive": dispersive,
    "aligned": aligned,
}
"""These replace what is minimised, and so leave no place for --loss-weights even."""

IDEAS: dict[str, Idea] = {
    **OBJECTIVES,
    "spread": spread,
    "growing": growing,
}
