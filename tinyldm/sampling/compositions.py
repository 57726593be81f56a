"""Prompts that ask for several things at once, each with a weight: --and and --interpolate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tinyldm.condition import Condition
from tinyldm.data.examples import Prompt, Request
from tinyldm.methods.composition import Composed


@dataclass(frozen=True)
class Composition:
    """A prompt made of prompts; methods/composition.py says what the weights mean."""

    parts: tuple[Prompt, ...]
    weights: tuple[float, ...]

    def __str__(self) -> str:
        """As in "a red ghost AND horns (-1)"; a weight of 1 goes without saying."""
        words = []
        for part, weight in zip(self.parts, self.weights, strict=True):
            words.append(str(part) if weight == 1 else f"{part} ({weight:g})")
        return " AND ".join(words)

    def plus(self, prompt: Prompt, weight: float) -> Composition:
        """The composition with one part more."""
        return Composition((*self.parts, prompt), (*self.weights, weight))


Also = Sequence[tuple[Prompt, float]]  # what every picture is to show as well, and how much


def composed(prompt: Prompt, also: Also) -> Prompt:
    """A prompt with further ones; without any the prompt itself."""
    if not also:
        return prompt
    whole = prompt if isinstance(prompt, Composition) else Composition((prompt,), (1.0,))
    for part, weight in also:
        whole = whole.plus(part, weight)
    return whole


def between(first: Prompt, last: Prompt, shares: Sequence[float]) -> list[Request]:
    """Requests that lead from one prompt to another; the two may be the same."""
    requests = []
    for k, share in enumerate(shares):
        prompt = first if first == last else Composition((first, last), (1 - share, share))
        requests.append(Request(f"{k:02d}-{100 * share:.0f}-percent.png", prompt))
    return requests


def parts_of(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that are to be encoded: compositions taken apart."""
    parts: list[Prompt] = []
    for prompt in prompts:
        parts += prompt.parts if isinstance(prompt, Composition) else [prompt]
    return parts


def regrouped(encoded: Condition, compositions: Sequence[Composition]) -> Composed:
    """The conditions of compositions of n parts each, from those of their parts_of(), in order."""
    n = len(compositions[0].parts)
    parts = tuple(encoded[slice(k, None, n)] for k in range(n))
    return Composed(parts, torch.tensor([each.weights for each in compositions]))
