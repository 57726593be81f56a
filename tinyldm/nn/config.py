"""UNetConfig: the shape of a UNet, checked when it is written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

ATTENTION = ("none", "self", "cross")
TIMES = ("sinusoidal", "fourier", "log_fourier")
PER_LEVEL = ("attention", "blocks", "heads", "depth")


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a UNet; a setting that can't be built raises ValueError with the reason.

    Of attention, blocks, heads and depth, one value stands for all levels.
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (
        128,
        256,
        512,
        512,
    )  # of each level; every level but the last halves the size
    attention: str | tuple[str, ...] = (
        "cross",
        "cross",
        "cross",
        "none",
    )  # "self": positions, "cross": tokens too
    blocks: int | tuple[int, ...] = (
        2  # ResBlocks of a level on the way down; one more on the way up
    )
    heads: int | tuple[int, ...] = 8  # the number of heads, not their width
    depth: int | tuple[int, ...] = 1  # transformer blocks in a "cross"
    middle: str = (
        "cross"  # attention between the ResBlocks at the bottom, as deep as the last level's
    )
    middle_blocks: int = 2  # with 1 there is no place for attention, with 0 no middle
    middle_heads: int | None = None  # None: the last level's
    middle_groups: int | None = (
        None  # of the norm before a "self" in the middle; None: groups, 0: no norm
    )
    linear_projection: bool = (
        False  # linear layers instead of 1x1 convolutions into and out of a "cross"
    )
    token_dim: int | None = 512  # width of Condition.tokens
    vector_dim: int | None = (
        None  # width of Condition.vector, which a perceptron adds to the time embedding
    )
    classes: int | None = (
        None  # instead: vector (b, classes) weighs the rows of a table; one-hot is a class label
    )
    map_channels: int = 0  # channels of Condition.maps, concatenated to x_t
    scale_shift: bool = False  # AdaGN: time scales and shifts the second norm of a ResBlock, else it is added before
    time_embedding: str = (
        "sinusoidal"  # or "fourier", "log_fourier": random frequencies of t, of log t
    )
    time_dim: int | None = None  # width of the time embedding; None: 4 * channels[0]
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    groups: int = 32  # of every group norm
    eps: float = 1e-5
    dropout: float = 0.0  # in the ResBlocks

    def __post_init__(self):
        for name in ("channels", *PER_LEVEL):
            value, n = getattr(self, name), 1 if name == "channels" else len(self.channels)
            object.__setattr__(
                self, name, tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
            )
        for name, good, expected in self._rules():
            if not good:
                raise ValueError(
                    f"UNetConfig: {name} is {getattr(self, name)!r}, expected {expected}"
                )

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """(setting, whether it can be built, what was expected); each rule may trust the ones before it."""
        yield "channels", len(self.channels) > 0, "at least one level"
        for name in PER_LEVEL:
            yield (
                name,
                len(getattr(self, name)) == len(self.channels),
                f"{len(self.channels)} values, as in channels",
            )
        for name in (
            "in_channels",
            "out_channels",
            "channels",
            "blocks",
            "heads",
            "depth",
            "groups",
        ):
            value = getattr(self, name)
            yield (
                name,
                all(map(_whole, value if isinstance(value, tuple) else [value])),
                "whole numbers above 0",
            )
        for name in ("token_dim", "vector_dim", "classes", "time_dim", "middle_heads"):
            yield (
                name,
                getattr(self, name) is None or _whole(getattr(self, name)),
                "a whole number above 0, or None",
            )
        for name in ("map_channels", "middle_blocks"):
            yield name, _whole(getattr(self, name), least=0), "a whole number from 0"
        for name in ("linear_projection", "scale_shift", "flip_sin_to_cos"):
            yield name, isinstance(getattr(self, name), bool), "True or False"
        yield (
            "attention",
            set(self.attention) <= set(ATTENTION),
            f"one of {', '.join(ATTENTION)} at each level",
        )
        yield "middle", self.middle in ATTENTION, f"one of {', '.join(ATTENTION)}"
        yield "time_embedding", self.time_embedding in TIMES, f"one of {', '.join(TIMES)}"
        yield (
            "channels",
            all(c % self.groups == 0 for c in self.channels),
            f"multiples of groups, {self.groups}",
        )
        yield (
            "channels",
            self.channels[0] % 2 == 0,
            "an even first width, half sines and half cosines of the time",
        )
        yield "time_dim", self.time_width % 2 == 0, "an even width"
        for c, kind, heads in zip(self.channels, self.attention, self.heads):
            yield (
                "heads",
                kind == "none" or c % heads == 0,
                f"heads that divide the {c} channels of their level",
            )
        c, alone = self.channels[-1], self.middle == "none"
        yield (
            "middle",
            alone or self.middle_blocks > 1,
            f"none, as middle_blocks is {self.middle_blocks}",
        )
        heads, groups = self.middle_heads or self.heads[-1], self.middle_groups
        yield (
            "middle_heads",
            alone or c % heads == 0,
            f"heads that divide {c} channels (None: {self.heads[-1]})",
        )
        good = groups is None or (_whole(groups, least=0) and (groups == 0 or c % groups == 0))
        yield "middle_groups", good, f"a divisor of {c}, 0 or None"
        yield (
            "token_dim",
            not self.reads_tokens or self.token_dim is not None,
            "the width of the tokens to cross to",
        )
        yield "classes", not (self.classes and self.vector_dim), "None where vector_dim is given"
        for name, least, below in (
            ("dropout", 0, 1),
            ("eps", 0, 1),
            ("freq_shift", 0, self.channels[0] // 2),
        ):
            value = getattr(self, name)
            yield (
                name,
                isinstance(value, (int, float)) and least <= value < below,
                f"a number in [{least}, {below})",
            )

    @property
    def reads_tokens(self) -> bool:
        """Whether any attention is "cross"."""
        return "cross" in (*self.attention, self.middle)

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return self.time_dim or 4 * self.channels[0]

    @property
    def vector_width(self) -> int | None:
        """Width of Condition.vector, whichever way it is read; None where there is none."""
        return self.classes or self.vector_dim

    def to_dict(self) -> dict:
        """Plain values that JSON keeps."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict) -> UNetConfig:
        """The inverse of to_dict; a key that is no setting raises ValueError."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"UNetConfig: no such settings: {', '.join(unknown)}")
        return cls(**values)


def _whole(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
