"""How an autoencoder is trained: the numbers, each with its help text. Importing this is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tinyldm.cli import BATCH_SIZE, SEED, STEPS, Bounds, Option, option, real, whole

WEIGHT = real(0, 1e6)  # of a term of the loss


def _number(value: Any, help: str, bounds: Bounds) -> Any:
    """A field with a default that is also an option of `python -m tinyldm vae train`."""
    return option(value, help, "training", bounds=bounds)


@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is trained: on L1 + squared x MSE + kl x KL (2112.10752), and a critic.

    steps, warmup and critic_from count optimiser steps. The learning rate rises for `warmup` steps
    and falls along a cosine to almost 0. The critic is there where adversarial or perceptual is
    above 0. Fields with a help text are options of the command.
    """

    steps: int = field(metadata={"option": Option("optimiser steps", "training", bounds=STEPS)})
    batch_size: int = _number(32, "images per step", BATCH_SIZE)
    lr: float = _number(1e-3, "highest learning rate", real(0, 1000, exclusive=True))
    warmup: int = 100
    kl: float = _number(1e-4, "weight of the divergence of the latents from N(0, 1)", WEIGHT)
    squared: float = _number(
        3.0, "weight of the squared error; the absolute error has weight 1", WEIGHT
    )
    ema: float = _number(0.998, "decay of the averaged weights", real(0, 0.99999))
    augment: float = _number(
        0.5, "share of batches that are rotated, recoloured and relit", real(0, 1)
    )
    flip: float = _number(0.0, "share of batches that are mirrored", real(0, 1))
    adversarial: float = _number(0.0, "weight of the verdict of a patch critic; 0: none", WEIGHT)
    perceptual: float = _number(
        0.0, "weight of the distance between features of the critic; 0: none", WEIGHT
    )
    critic_from: int = _number(0, "step from which the critic counts", whole(0, 10**9))
    precision: str = "auto"
    seed: int = _number(0, "seed of weights and order", SEED)

    @property
    def has_critic(self) -> bool:
        """Whether there is a critic."""
        return self.adversarial > 0 or self.perceptual > 0

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)
