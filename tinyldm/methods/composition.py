"""Guidance by several conditions, each with a scale of its own; composition of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.guidance import Guidance, predictions_of

if TYPE_CHECKING:
    from tinyldm.diffusion.sampler import Denoiser


@dataclass(frozen=True, eq=False)
class StepwiseGuidance:
    """Guidance by n conditions, each of which adds something to the one before (2211.09800, eq. 3).

    With D_k the prediction under condition c_k, the guided prediction is

        D_0 + s_1 (D_1 - D_0) + s_2 (D_2 - D_1) + ... + s_n (D_n - D_(n-1))

    and costs n + 1 rows of the network for a sample. With all scales 1 it is D_n.

    scales:     s_1, ..., s_n, numbers or tensors (b, 1, ..., 1)
    conditions: a full condition (b rows) -> c_0, ..., c_n: the null condition first, the full one
                last; each of b rows, or of one, which then stands for all
    """

    scales: Sequence[float | Tensor]
    conditions: Callable[[Condition], Sequence[Condition]]

    def __call__(self, denoiser: Denoiser) -> Denoiser:
        """The guided denoiser."""

        def guided(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            return self.combine(self.predictions(denoiser, x_t, t, condition))

        return guided

    def predictions(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Condition | None
    ) -> list[Tensor]:
        """D_0, ..., D_n, each (b, ...), by one call."""
        if condition is None:
            raise ValueError("guidance needs a condition")
        conditions = self.conditions(condition)
        if len(conditions) != len(self.scales) + 1:
            raise ValueError(
                f"{len(self.scales)} scales need as many conditions and the null one, "
                f"got {len(conditions)}"
            )
        rows = [c.to(x_t.device, non_blocking=True) for c in conditions]
        rows = [c if len(c) == len(x_t) else c.expand(len(x_t)) for c in rows]
        # the full condition goes first in the batch, as in Guidance
        return predictions_of(denoiser, x_t, t, rows[::-1])[::-1]

    def combine(self, predictions: Sequence[Tensor]) -> Tensor:
        """D_0, ..., D_n, each (b, ...) -> the guided prediction."""
        prediction = before = predictions[0]
        for scale, now in zip(self.scales, predictions[1:], strict=True):
            prediction = prediction + scale * (now - before)
            before = now
        return prediction


@dataclass(frozen=True, eq=False)
class IndependentGuidance(StepwiseGuidance):
    """Guidance by n conditions that know nothing of each other (2206.01714, conjunction).

    As StepwiseGuidance, but each prediction is compared with the null one:

        D_0 + s_1 (D_1 - D_0) + s_2 (D_2 - D_0) + ... + s_n (D_n - D_0)
    """

    def combine(self, predictions: Sequence[Tensor], times: float | Tensor = 1.0) -> Tensor:
        """As in StepwiseGuidance; times: a factor of all scales."""
        prediction = null = predictions[0]
        for scale, now in zip(self.scales, predictions[1:], strict=True):
            prediction = prediction + times * scale * (now - null)
        return prediction


@dataclass(frozen=True, eq=False)
class ComposedGuidance(IndependentGuidance):
    """Guidance of scale s by conditions that are weighed against each other; scales: w_1, ..., w_n.

    What they ask for together, C = D_0 + w_1 (D_1 - D_0) + ... + w_n (D_n - D_0), stands where the
    prediction under one condition does otherwise: D_0 + s (C - D_0), outside of an interval C, and
    so on for how.rescale and how.guide, which is asked about all the conditions as well.
    """

    how: Guidance

    def __call__(self, denoiser: Denoiser) -> Denoiser:
        how = self.how

        def guided(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            shape = (-1,) + (1,) * (x_t.ndim - 1)
            scale = how.scale_at(t, how.scale).to(x_t).view(shape)
            predictions = self.predictions(denoiser, x_t, t, condition)
            asked = self.combine(predictions)
            prediction = self.combine(predictions, scale)
            if how.guide is not None:
                guide_scale = how.scale_at(t, how.guide_scale).to(x_t).view(shape)
                weak = self.combine(self.predictions(how.guide, x_t, t, condition))
                prediction = prediction + (guide_scale - 1) * (asked - weak)
            return how.rescaled(prediction, asked)

        return guided


@dataclass(frozen=True, eq=False)
class Composed:
    """Prompts that ask for several things at once, as n conditions of b rows each.

    With weights w_k, guidance of scale s leads to

        D_0 + s (w_1 (D_1 - D_0) + ... + w_n (D_n - D_0))

    which, with s = 1, is the score of p(x) (p(x | c_1) / p(x))^w_1 ... (p(x | c_n) / p(x))^w_n at
    each noise level. All weights 1: all of the conditions, if they know nothing of each other
    (2206.01714, conjunction); a negative weight: not this one (negation). Weights 1 - a and a: the
    way from one prompt to another. It mixes what is predicted and not the tokens of the two, since
    the third word of one sentence has nothing to do with the third of another, and labels or maps
    have no words at all.

    parts:   n conditions of b rows
    weights: (b, n)
    """

    parts: tuple[Condition, ...]
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Composed:
        """The rows of a slice, of a list or of an index tensor."""
        return Composed(tuple(part[rows] for part in self.parts), self.weights[rows])

    def guidance(self, how: Guidance, device: torch.device | str = "cpu") -> ComposedGuidance:
        """The guidance by all parts, of x (b, c, h, w), whatever the denoiser is called with.

        how: as for one prompt, with the null condition
        """
        columns = self.weights.to(device)[:, :, None, None, None].unbind(1)  # (b, 1, 1, 1) each
        rows = [how.null.expand(len(self)), *self.parts]
        conditions = [row.to(device) for row in rows]
        return ComposedGuidance(columns, lambda condition: conditions, how)
