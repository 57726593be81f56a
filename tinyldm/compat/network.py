"""The UNet with the settings that only published networks need.

They choose other waves of the time, and other heads and another norm in the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.nn.blocks import SelfAttention, Sinusoidal
from tinyldm.nn.config import UNetConfig, is_between, is_whole
from tinyldm.nn.unet import UNet
from tinyldm.typed import as_type

TIMES = ("sinusoidal", "fourier", "log_fourier")


@dataclass(frozen=True)
class PublishedConfig(UNetConfig):
    """UNetConfig and five settings more, whose defaults are what a UNet does.

    time_embedding:  "fourier" and "log_fourier" are waves of random frequencies of t and of log t
    flip_sin_to_cos: the cosines first
    freq_shift:      with 1 the last frequency is 1/10000 exactly, as DDPM had it
    middle_heads:    None is the last level's
    middle_groups:   of the norm before a "self" in the middle; None is groups, 0 is no norm
    """

    time_embedding: str = "sinusoidal"
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    middle_heads: int | None = None
    middle_groups: int | None = None

    def check(self) -> None:
        super().check()
        good = self.time_embedding in TIMES
        self.require("time_embedding", good, f"one of {', '.join(TIMES)}")
        good = isinstance(self.flip_sin_to_cos, bool)
        self.require("flip_sin_to_cos", good, "True or False")
        half = self.channels[0] // 2
        self.require("freq_shift", is_between(self.freq_shift, 0, half), f"a number in [0, {half})")
        width, groups = self.channels[-1], self.middle_groups
        good = groups is None or (is_whole(groups, least=0) and (not groups or width % groups == 0))
        self.require("middle_groups", good, f"a divisor of {width}, 0 or None")

    def check_middle_heads(self) -> None:
        good = self.middle_heads is None or is_whole(self.middle_heads)
        self.require("middle_heads", good, "a whole number above 0, or None")
        last = self.levels[-1]
        good = last.width % (self.middle_heads or last.heads) == 0
        expected = f"heads that divide {last.width} channels (None: {last.heads})"
        self.require("middle_heads", good, expected)


class PublishedUNet(UNet):
    """The UNet of a PublishedConfig; where its settings are the defaults, it is UNet."""

    config: PublishedConfig

    def make_time_features(self) -> Sinusoidal:
        config = self.config
        if config.time_embedding == "sinusoidal":
            return PublishedSinusoidal(
                config.channels[0], config.flip_sin_to_cos, config.freq_shift
            )
        log = config.time_embedding == "log_fourier"
        width = 2 * config.channels[0] if log else config.time_width
        return Fourier(width, config.flip_sin_to_cos, log)

    def make_middle(self, n: int) -> list[nn.Module]:
        config = self.config
        last = config.levels[-1]
        heads = config.middle_heads or last.heads
        if config.middle == "self":
            groups = config.groups if config.middle_groups is None else config.middle_groups
            return [SelfAttention(last.width, heads, groups, config.eps) for _ in range(n)]
        return self.attentions_of(last._replace(attention=config.middle, heads=heads), n)


class PublishedSinusoidal(Sinusoidal):
    """Sinusoidal with the sines first, unless flipped, and with frequencies that end elsewhere."""

    def __init__(self, width: int, flip_sin_to_cos: bool = True, freq_shift: float = 0.0):
        super().__init__(width)
        self.flip_sin_to_cos = flip_sin_to_cos
        self.freq_shift = freq_shift

    def angles(self, t: Tensor) -> Tensor:
        n = self.width // 2
        k = torch.arange(n, dtype=torch.float32, device=t.device)
        return t[:, None] * torch.exp(-math.log(10000) * k / (n - self.freq_shift))

    def forward(self, t: Tensor) -> Tensor:
        angle = self.angles(t.float())
        if self.flip_sin_to_cos:
            return torch.cat([angle.cos(), angle.sin()], dim=-1)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Fourier(PublishedSinusoidal):
    """The same waves at fixed random frequencies (2006.10739).

    log: of log t instead of t, as networks that are told sigma have it
    """

    def __init__(self, width: int, flip_sin_to_cos: bool, log: bool):
        super().__init__(width, flip_sin_to_cos)
        self.log = log
        self.weight: Tensor
        self.register_buffer("weight", torch.randn(width // 2) * (16 if log else 1))

    def angles(self, t: Tensor) -> Tensor:
        if self.log:
            t = t.log()
        return 2 * math.pi * t[:, None] * self.weight.float()


def build(**settings: Any) -> UNet:
    """The network of the settings of a PublishedConfig, for a checkpoint to name."""
    return PublishedUNet(as_type(settings, "network", PublishedConfig))
