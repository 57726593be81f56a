"""How an autoencoder is trained: the numbers, each with its help text. Importing this is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


def _number(value: Any, help: str) -> Any:
    """A field with a default, and what `python -m tinyldm vae train --help` says about it."""
    return field(default=value, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is trained: on L1 + squared x MSE + kl x KL (2112.10752), and a critic.

    steps, warmup and critic_from count optimiser steps. The learning rate rises for `warmup` steps
    and falls along a cosine to almost 0. The critic is there where adversarial or perceptual is
    above 0. Fields with a help text are options of the command.
    """

    steps: int = field(metadata={"help": "optimiser steps"})
    batch_size: int = _number(32, "images per step")
    lr: float = _number(1e-3, "highest learning rate")
    warmup: int = 100
    kl: float = _number(1e-4, "weight of the divergence of the latents from N(0, 1)")
    squared: float = _number(3.0, "weight of the squared error; the absolute error has weight 1")
    ema: float = _number(0.998, "decay of the averaged weights")
    augment: float = _number(0.5, "share of batches that are rotated, recoloured and relit")
    flip: float = _number(0.0, "share of batches that are mirrored")
    adversarial: float = _number(0.0, "weight of the verdict of a patch critic; 0: none")
    perceptual: float = _number(
        0.0, "weight of the distance between features of the critic; 0: none"
    )
    critic_from: int = _number(0, "step from which the critic counts")
    precision: str = "auto"
    seed: int = _number(0, "seed of weights and order")

    @property
    def critical(self) -> bool:
        """Whether there is a critic."""
        return self.adversarial > 0 or self.perceptual > 0

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)
