"""Condition: what a network is told besides x_t and t."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A batch of conditions; every part is optional and None where a model has no use for it.

    tokens: (b, n, c) float, a sequence for cross-attention, such as the words of a caption
    mask:   (b, n) bool, True where a token is real; None means that all are
    vector: (b, d) float, added to the time embedding
    maps:   (b, k, h, w) float, concatenated to the input of the network
    """

    tokens: Tensor | None = None
    mask: Tensor | None = None
    vector: Tensor | None = None
    maps: Tensor | None = None

    def __post_init__(self):
        if self.mask is not None and (
            self.tokens is None or self.mask.shape != self.tokens.shape[:2]
        ):
            expected = (
                "no mask without tokens"
                if self.tokens is None
                else f"{tuple(self.tokens.shape[:2])}"
            )
            raise ValueError(f"mask has shape {tuple(self.mask.shape)}, expected {expected}")
        lengths = {name: len(part) for name, part in self.parts().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the parts of a condition differ in batch size: {lengths}")

    def parts(self) -> dict[str, Tensor]:
        """The parts that are present, by name."""
        return {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None
        }

    def map(self, function) -> Condition:
        """The condition whose parts are function(part)."""
        return Condition(**{name: function(part) for name, part in self.parts().items()})

    def __len__(self) -> int:
        """The batch size; 0 when nothing is present."""
        return next((len(part) for part in self.parts().values()), 0)

    def __getitem__(self, rows) -> Condition:
        """The rows of a slice, of a list or of an index tensor: still a batch."""
        return self.map(lambda part: part[rows])

    def to(
        self, device=None, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> Condition:
        """The condition on another device; dtype applies to all but the mask."""
        return self.map(
            lambda part: part.to(device, None if part.dtype == torch.bool else dtype, non_blocking)
        )

    def expand(self, b: int) -> Condition:
        """One row repeated b times, without a copy."""
        if len(self) > 1:
            raise ValueError(
                f"only a condition of one row can be repeated, this one has {len(self)}"
            )
        return self.map(lambda part: part.expand(b, *part.shape[1:]))

    def padded(self, n: int, masked: bool = False) -> Condition:
        """The same condition with n tokens, the added ones zero and masked; with a mask in any case if masked."""
        if self.tokens is None or (
            n == self.tokens.shape[1] and (self.mask is not None or not masked)
        ):
            return self
        extra = n - self.tokens.shape[1]
        if extra < 0:
            raise ValueError(f"{self.tokens.shape[1]} tokens can't be padded to {n}")
        mask = (
            self.mask
            if self.mask is not None
            else self.tokens.new_ones(self.tokens.shape[:2], dtype=torch.bool)
        )
        return Condition(
            F.pad(self.tokens, (0, 0, 0, extra)), F.pad(mask, (0, extra)), self.vector, self.maps
        )

    @staticmethod
    def cat(conditions: list[Condition]) -> Condition:
        """The rows of all, in order; shorter token sequences are padded to the longest."""
        lengths = [c.tokens.shape[1] for c in conditions if c.tokens is not None]
        masked = any(c.mask is not None for c in conditions) or len(set(lengths)) > 1
        parts = [c.padded(max(lengths, default=0), masked).parts() for c in conditions]
        if any(part.keys() != parts[0].keys() for part in parts):
            raise ValueError(
                f"conditions with different parts can't be joined: {[sorted(part) for part in parts]}"
            )
        return Condition(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def drop(self, null: Condition, dropped: Tensor) -> Condition:
        """The condition with the rows where dropped (b,) is True replaced by the one row of null."""
        rows = (
            torch.arange(len(self), device=dropped.device) + len(self) * dropped
        )  # row k of self, or row k of null
        return Condition.cat([self, null.expand(len(self))])[rows]
