"""UNetConfig: the shape of a UNet, checked when it is written down."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import NamedTuple

ATTENTION = ("none", "self", "cross")
PER_LEVEL = ("attention", "blocks", "heads", "depth")


class LevelShape(NamedTuple):
    """The settings of one level: its width in channels, then those in PER_LEVEL."""

    width: int
    attention: str
    blocks: int
    heads: int
    depth: int


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a UNet; a setting that can't be built raises ValueError with the reason.

    For attention, blocks, heads and depth, one value stands for all levels.

    in_channels, out_channels: of x_t and of the prediction
    channels:          the width of each level; every level but the last halves the size
    attention:         after each ResBlock of a level: "none", "self" among the positions, or
                       "cross", which reads the tokens too
    blocks:            ResBlocks of a level on the way down; the way up has one more
    heads:             the number of attention heads, not their width
    depth:             transformer blocks in a "cross"
    middle:            attention between the ResBlocks at the bottom, with the last level's heads
                       and depth
    middle_blocks:     ResBlocks at the bottom; 1 leaves no place for attention, 0 is no middle
    linear_projection: linear layers instead of 1x1 convolutions into and out of a "cross"
    token_dim:         width of Condition.tokens
    vector_dim:        width of Condition.vector, which a perceptron adds to the time embedding
    classes:           instead of vector_dim: the vector (b, classes) weighs the rows of a learned
                       table; a one-hot vector is a class label
    map_channels:      channels of Condition.maps, concatenated to x_t
    scale_shift:       AdaGN: the time scales and shifts the second norm of a ResBlock, instead of
                       being added before it
    time_dim:          width of the time embedding; None is 4 * channels[0]
    groups, eps:       of every group norm
    dropout:           in the ResBlocks
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    attention: str | tuple[str, ...] = ("cross", "cross", "cross", "none")
    blocks: int | tuple[int, ...] = 2
    heads: int | tuple[int, ...] = 8
    depth: int | tuple[int, ...] = 1
    middle: str = "cross"
    middle_blocks: int = 2
    linear_projection: bool = False
    token_dim: int | None = 512
    vector_dim: int | None = None
    classes: int | None = None
    map_channels: int = 0
    scale_shift: bool = False
    time_dim: int | None = None
    groups: int = 32
    eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        channels = self.channels
        if not isinstance(channels, (tuple, list)):
            channels = (channels,)
        object.__setattr__(self, "channels", tuple(channels))
        for name in PER_LEVEL:
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                value = [value] * len(self.channels)
            object.__setattr__(self, name, tuple(value))
        self.check()

    def check(self) -> None:
        """ValueError for the first setting that can't be built; later rules trust earlier ones."""
        self._check_values()
        self._check_widths()
        self._check_conditions()

    def require(self, name: str, good: bool, expected: str) -> None:
        """ValueError, with the setting and what was expected of it, unless good."""
        if not good:
            value = reprlib.repr(getattr(self, name))  # a long one in part
            raise ValueError(f"{type(self).__name__}: {name} is {value}, expected {expected}")

    def _check_values(self) -> None:
        """The type and range of each setting by itself."""
        n = len(self.channels)
        self.require("channels", n > 0, "at least one level")
        for name in PER_LEVEL:
            self.require(name, len(getattr(self, name)) == n, f"{n} values, as in channels")
        for name in ("in_channels", "out_channels", "groups"):
            self.require(name, is_whole(getattr(self, name)), "whole numbers above 0")
        for name in ("channels", "blocks", "heads", "depth"):
            self.require(name, all(map(is_whole, getattr(self, name))), "whole numbers above 0")
        for name in ("token_dim", "vector_dim", "classes", "time_dim"):
            value = getattr(self, name)
            self.require(name, value is None or is_whole(value), "a whole number above 0, or None")
        for name in ("map_channels", "middle_blocks"):
            self.require(name, is_whole(getattr(self, name), least=0), "a whole number from 0")
        for name in ("linear_projection", "scale_shift"):
            self.require(name, isinstance(getattr(self, name), bool), "True or False")
        for name in ("dropout", "eps"):
            self.require(name, is_between(getattr(self, name), 0, 1), "a number in [0, 1)")
        kinds = f"one of {', '.join(ATTENTION)}"
        self.require("attention", set(self.attention) <= set(ATTENTION), f"{kinds} at each level")
        self.require("middle", self.middle in ATTENTION, kinds)

    def _check_widths(self) -> None:
        """Groups and heads divide their widths; what is half sines and half cosines is even."""
        good = all(width % self.groups == 0 for width in self.channels)
        self.require("channels", good, f"multiples of groups, {self.groups}")
        good = self.channels[0] % 2 == 0
        self.require("channels", good, "an even first width, half sines and half cosines")
        self.require("time_dim", self.time_width % 2 == 0, "an even width")
        for level in self.levels:
            good = level.attention == "none" or level.width % level.heads == 0
            expected = f"heads that divide the {level.width} channels of their level"
            self.require("heads", good, expected)

    def _check_conditions(self) -> None:
        """The middle, and the parts of a condition."""
        if self.middle != "none":
            expected = f"none, as middle_blocks is {self.middle_blocks}"
            self.require("middle", self.middle_blocks > 1, expected)
            self.check_middle_heads()
        good = not self.reads_tokens or self.token_dim is not None
        self.require("token_dim", good, "the width of the tokens to cross to")
        good = not (self.classes and self.vector_dim)
        self.require("classes", good, "None where vector_dim is given")

    def check_middle_heads(self) -> None:
        """The heads of the middle divide its width."""
        width, heads = self.levels[-1].width, self.levels[-1].heads
        self.require("heads", width % heads == 0, f"heads at the end that divide {width} channels")

    @property
    def levels(self) -> list[LevelShape]:
        """The settings of each level, the largest size first."""
        columns = [self.channels, *(getattr(self, name) for name in PER_LEVEL)]
        return [LevelShape._make(row) for row in zip(*columns, strict=True)]

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
        """Width of Condition.vector, in whichever way it is read; None where there is none."""
        return self.classes or self.vector_dim


def is_whole(value: object, least: int = 1) -> bool:
    """Whether a value is an integer, from `least` on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_between(value: object, least: float, below: float) -> bool:
    """Whether a value is a number in [least, below)."""
    return isinstance(value, (int, float)) and least <= value < below
