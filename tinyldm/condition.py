"""Condition: what a network is told besides x_t and t."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """A batch of conditions. Every part is optional: None where a model has no use for it.

    tokens: (b, n, c) float, a sequence for cross-attention, such as the words of a caption
    mask:   (b, n) bool, True where a token is real; None means that all are
    vector: (b, d) float, added to the time embedding
    maps:   (b, k, h, w) float, concatenated to the input of the network
    """

    tokens: Tensor | None = None
    mask: Tensor | None = None
    vector: Tensor | None = None
    maps: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is not None:
            got = tuple(self.mask.shape)
            if self.tokens is None:
                raise ValueError(f"mask has shape {got}, expected no mask without tokens")
            expected = tuple(self.tokens.shape[:2])
            if got != expected:
                raise ValueError(f"mask has shape {got}, expected {expected}")
        lengths = {name: len(part) for name, part in self.parts().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the parts of a condition differ in batch size: {lengths}")

    def parts(self) -> dict[str, Tensor]:
        """The parts that are present, by name."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The condition whose parts are function(part)."""
        return Condition(**{name: function(part) for name, part in self.parts().items()})

    def __len__(self) -> int:
        """The batch size b; 0 when no part is present."""
        for part in self.parts().values():
            return len(part)
        return 0

    @property
    def device(self) -> torch.device:
        """Where the parts are; the CPU when none is present."""
        for part in self.parts().values():
            return part.device
        return torch.device("cpu")

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Condition:
        """The rows of a slice, of a list or of an index tensor: still a batch."""
        return self.map(lambda part: part[rows])

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> Condition:
        """The condition on another device; dtype applies to all parts but the mask."""

        def moved(part: Tensor) -> Tensor:
            kind = None if part.dtype == torch.bool else dtype
            return part.to(device, kind, non_blocking)

        return self.map(moved)

    def expand(self, b: int) -> Condition:
        """One row repeated b times, without a copy."""
        if len(self) > 1:
            raise ValueError(
                f"only a condition of one row can be repeated, this one has {len(self)}"
            )
        return self.map(lambda part: part.expand(b, *part.shape[1:]))

    def padded(self, n: int, masked: bool = False) -> Condition:
        """The same condition with n tokens; the added ones are zero and masked.

        masked: give it a mask even where no token is added
        """
        if self.tokens is None:
            return self
        extra = n - self.tokens.shape[1]
        if extra < 0:
            raise ValueError(f"{self.tokens.shape[1]} tokens can't be padded to {n}")
        if extra == 0 and (self.mask is not None or not masked):
            return self
        mask = self.mask
        if mask is None:
            mask = self.tokens.new_ones(self.tokens.shape[:2], dtype=torch.bool)
        return Condition(
            tokens=F.pad(self.tokens, (0, 0, 0, extra)),
            mask=F.pad(mask, (0, extra)),
            vector=self.vector,
            maps=self.maps,
        )

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """The rows of all conditions, in order; token sequences are padded to the longest."""
        lengths = [c.tokens.shape[1] for c in conditions if c.tokens is not None]
        longest = max(lengths, default=0)
        masked = any(c.mask is not None for c in conditions) or len(set(lengths)) > 1
        padded = [c.padded(longest, masked).parts() for c in conditions]
        names = padded[0].keys()
        if any(parts.keys() != names for parts in padded):
            raise ValueError(
                "conditions with different parts can't be joined: "
                f"{[sorted(parts) for parts in padded]}"
            )
        return Condition(**{name: torch.cat([parts[name] for parts in padded]) for name in names})

    def drop(self, null: Condition, dropped: Tensor) -> Condition:
        """The condition with the one row of null wherever dropped (b,) bool is True."""
        b = len(self)
        both = Condition.cat([self, null.expand(b)])
        own = torch.arange(b, device=dropped.device)
        rows = torch.where(dropped, own + b, own).to(self.device, non_blocking=True)
        return both[rows]
