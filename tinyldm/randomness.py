"""Random numbers as a function: a stream follows from (seed, purpose, rank, position) alone.

Noise and data order are not drawn from a global generator that remembers what came before. So a
resumed run goes on bit for bit, and no process repeats another's numbers. The derivation is numpy's
SeedSequence, which mixes whole numbers so that neighbouring ones give unrelated streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


PURPOSES = {
    "noise": 1,  # all that the trainer draws for a batch: noise, timesteps, what it drops
    "order": 2,  # the order of its images
    "grid": 3,  # the noise of the pictures that a time grid is fitted to
}


def seed_sequence(
    seed: int, purpose: str, *, rank: int = 0, position: int = 0
) -> np.random.SeedSequence:
    """The seed of one stream. purpose: one of PURPOSES; position: of a batch, an epoch, ..."""
    return np.random.SeedSequence([seed, rank, position], spawn_key=(PURPOSES[purpose],))


def torch_stream(seed: int, purpose: str, *, rank: int = 0, position: int = 0) -> torch.Generator:
    """One stream as a torch generator on the CPU, so that every device sees the same numbers."""
    import torch

    sequence = seed_sequence(seed, purpose, rank=rank, position=position)
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint32)[0]))


def numpy_stream(
    seed: int, purpose: str, *, rank: int = 0, position: int = 0
) -> np.random.Generator:
    """One stream as a numpy generator."""
    return np.random.default_rng(seed_sequence(seed, purpose, rank=rank, position=position))


def plain_stream(seed: int, *position: int) -> np.random.Generator:
    """The stream of whole numbers alone, without a purpose: numpy's default_rng([seed, ...]).

    It draws what was drawn so before there were purposes, and has to stay: the augmented copies of
    an image in a latent cache (position: a number made of the image's bytes) and the procedural
    landscapes (position: the number of the picture, and of what is drawn in it).
    """
    return np.random.default_rng([seed, *position])
