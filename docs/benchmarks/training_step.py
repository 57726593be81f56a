"""A trainer on latents that are made up, and one step of it, for benchmarks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tinyldm.condition import Condition
from tinyldm.processes import Processes
from tinyldm.training.network import DataShape, build_network, network_recipe
from tinyldm.training.presets import PRESETS
from tinyldm.training.settings import TrainSettings
from tinyldm.training.trainer import Trainer


class Latents:
    """What a trainer asks of its data: 256 random latents, with captions of some tokens each."""

    def __init__(self, shape, tokens, width):
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(256, *shape, generator=generator)
        self.tokens = torch.randn(256, tokens, width, generator=generator)
        self.null = Condition(torch.zeros(1, 1, width), torch.ones(1, 1, dtype=torch.bool))
        self.mean, self.std = torch.zeros(shape[0], 1, 1), torch.ones(shape[0], 1, 1)
        self.longest = tokens

    def __len__(self):
        return len(self.latents)

    def batch(self, indices, generator, device):
        mask = torch.ones(len(indices), self.longest, dtype=torch.bool)
        condition = Condition(self.tokens[indices], mask)
        return self.latents[indices].to(device), condition.to(device)


def trainer_of(cache, config, place: Path, device, **settings) -> Trainer:
    """A trainer of a fresh network of a config, on a cache; nothing is written to `place`."""
    PRESETS["benchmark"] = config
    settings = TrainSettings(
        preset="benchmark",
        optimizer="adamw",
        loss_weights="plain",
        warmup=1,
        max_steps=10**6,
        **settings,
    )
    shape = DataShape.of(
        tuple(cache.batch(torch.arange(1), torch.Generator(), "cpu")[0].shape[1:]), cache.null
    )
    torch.manual_seed(0)
    network = build_network(network_recipe(settings, shape))
    return Trainer(network, cache, settings, place, processes=Processes(device=device))


def step(trainer: Trainer) -> None:
    """One step of Trainer.loop, without its log."""
    trainer.gradient()
    nn.utils.clip_grad_norm_(trainer.network.parameters(), trainer.settings.clip)
    for optimizer in trainer.optimizers:
        optimizer.step()
    trainer.ema.update(trainer.network)
    trainer.progress.step += 1
