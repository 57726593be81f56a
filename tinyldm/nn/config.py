"""UNetConfig: the shape of a UNet, checked when it is written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

ATTENTION = ("none", "self", "cross")
PER_LEVEL = ("blocks", "heads", "depth")


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a UNet; a setting that can't be built raises ValueError with the reason.

    in_channels, out_channels: of x_t and of the prediction
    channels:    width of each level; every level but the last halves the size
    attention:   of each level: "none", "self" (among positions) or "cross" (a transformer that reads the tokens too)
    middle:      attention between the ResBlocks at the bottom
    middle_blocks: ResBlocks at the bottom; with 1 there is no place for attention, with 0 no middle
    blocks:      ResBlocks of a level on the way down (one more on the way up); like heads and depth, an int means
                 the same for every level
    heads, middle_heads: number of attention heads (not their width); middle_heads None is the last level's
    depth:       transformer blocks in each "cross"; the middle has the last level's
    linear_projection: linear layers instead of 1x1 convolutions into and out of a transformer
    token_dim:   width of Condition.tokens
    vector_dim:  width of Condition.vector, which a small perceptron adds to the time embedding
    classes:     instead: vector (b, classes) weighs the rows of a learned table; a class is a one-hot row
    map_channels: channels of Condition.maps, concatenated to x_t
    scale_shift: time modulates the second norm of a ResBlock (AdaGN) instead of being added before it
    time_embedding: "sinusoidal", or "fourier" / "log_fourier" (random frequencies of t / of log t)
    time_dim:    width of the time embedding; None is 4 * channels[0]
    groups, eps: of the group norms; middle_groups: of the norm before a "self" middle, None the same, 0 no norm
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    attention: tuple[str, ...] = ("cross", "cross", "cross", "none")
    middle: str = "cross"
    middle_blocks: int = 2
    blocks: int | tuple[int, ...] = 2
    heads: int | tuple[int, ...] = 8
    middle_heads: int | None = None
    depth: int | tuple[int, ...] = 1
    linear_projection: bool = False
    token_dim: int | None = 512
    vector_dim: int | None = None
    classes: int | None = None
    map_channels: int = 0
    scale_shift: bool = False
    time_embedding: str = "sinusoidal"
    time_dim: int | None = None
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    groups: int = 32
    middle_groups: int | None = None
    eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self):
        levels = len(self.channels)
        for name in PER_LEVEL:
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) * levels if isinstance(value, int) else tuple(value))
        for name in ("channels", "attention"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        fill = {"time_dim": 4 * self.channels[0] if levels else 0, "middle_groups": self.groups,
                "middle_heads": self.heads[-1] if self.heads else 0}
        for name, value in fill.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, good, expected in self._rules():
            if not good:
                raise ValueError(f"UNetConfig: {name} is {getattr(self, name)!r}, expected {expected}")

    def _rules(self):
        """(field, whether it holds, what was expected), in the order in which a reader would ask."""
        yield "channels", len(self.channels) > 0, "at least one level"
        for name in ("attention", *PER_LEVEL):
            yield name, len(getattr(self, name)) == len(self.channels), f"{len(self.channels)} values, as in channels"
        positive = ("in_channels", "out_channels", "channels", *PER_LEVEL, "middle_heads", "time_dim", "groups")
        for name in positive:
            yield name, all(_whole(n) and n > 0 for n in _values(getattr(self, name))), "whole numbers above 0"
        for name in ("token_dim", "vector_dim", "classes"):
            value = getattr(self, name)
            yield name, value is None or _whole(value) and value > 0, "a whole number above 0 or None"
        for name in ("map_channels", "middle_blocks", "middle_groups"):
            yield name, _whole(getattr(self, name)) and getattr(self, name) >= 0, "a whole number from 0"
        yield "attention", set(self.attention) <= set(ATTENTION), f"of each level one of {', '.join(ATTENTION)}"
        yield "middle", self.middle in ATTENTION, f"one of {', '.join(ATTENTION)}"
        times = ("sinusoidal", "fourier", "log_fourier")
        yield "time_embedding", self.time_embedding in times, f"one of {', '.join(times)}"
        yield "channels", all(c % self.groups == 0 for c in self.channels), f"multiples of groups ({self.groups})"
        yield "channels", self.channels[0] % 2 == 0, "an even first width, for sines and cosines of the time"
        yield "time_dim", self.time_dim % 2 == 0, "an even width, for sines and cosines of the time"
        for c, kind, heads in zip(self.channels, self.attention, self.heads):
            yield "heads", kind == "none" or c % heads == 0, f"heads that divide the level's {c} channels"
        bottom, alone = self.channels[-1], self.middle == "none"
        yield "middle", alone or self.middle_blocks > 1, f"none, as middle_blocks is {self.middle_blocks}"
        yield "middle_heads", alone or bottom % self.middle_heads == 0, f"heads that divide {bottom} channels"
        yield "middle_groups", not self.middle_groups or bottom % self.middle_groups == 0, f"a divisor of {bottom}"
        yield "token_dim", not self.reads_tokens or self.token_dim, "the width of the tokens that \"cross\" reads"
        yield "classes", not (self.classes and self.vector_dim), "None where vector_dim is given"
        yield "dropout", 0 <= self.dropout < 1, "a number in [0, 1)"
        yield "eps", self.eps > 0, "a number above 0"
        yield "freq_shift", self.freq_shift < self.channels[0] // 2, "a number below half the first width"

    @property
    def reads_tokens(self) -> bool:
        """Whether any attention is "cross"."""
        return "cross" in (*self.attention, self.middle)

    @property
    def vector_width(self) -> int | None:
        """Width of Condition.vector, whichever way it is read; None where there is none."""
        return self.classes or self.vector_dim

    def to_dict(self) -> dict:
        """Plain values that JSON keeps."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> UNetConfig:
        """The inverse of to_dict; a key that no setting has raises ValueError."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"UNetConfig: unknown settings {', '.join(unknown)}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _values(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
