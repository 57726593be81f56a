"""How the network is told the time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """Sines and cosines of t at frequencies falling from 1 to 1/10000 (1706.03762, section 3.5).

    t (b,) -> (b, width), always float32: bfloat16 keeps 8 bits of t, where 936 and 937 are the same number.
    flip_sin_to_cos puts the cosines first; freq_shift 1 ends at 1/10000 exactly, as DDPM did.
    """

    def __init__(self, width: int, flip_sin_to_cos: bool = True, freq_shift: float = 0.0):
        super().__init__()
        self.width, self.flip_sin_to_cos, self.freq_shift = width, flip_sin_to_cos, freq_shift

    def forward(self, t: Tensor) -> Tensor:
        k = torch.arange(self.width // 2, dtype=torch.float32, device=t.device)
        frequency = torch.exp(-math.log(10000) * k / (self.width // 2 - self.freq_shift))
        return _waves(t.float()[:, None] * frequency, self.flip_sin_to_cos)


class Fourier(nn.Module):
    """Sines and cosines of t, or of log t, at fixed random frequencies (2006.10739): t (b,) -> (b, width), float32."""

    def __init__(self, width: int, flip_sin_to_cos: bool, scale: float, log: bool):
        super().__init__()
        self.flip_sin_to_cos, self.log = flip_sin_to_cos, log
        self.register_buffer("weight", torch.randn(width // 2) * scale)

    def forward(self, t: Tensor) -> Tensor:
        t = t.float().log() if self.log else t.float()
        return _waves(2 * math.pi * t[:, None] * self.weight.float(), self.flip_sin_to_cos)


def _waves(angle: Tensor, flip_sin_to_cos: bool) -> Tensor:
    waves = (angle.cos(), angle.sin()) if flip_sin_to_cos else (angle.sin(), angle.cos())
    return torch.cat(waves, dim=-1)  # (b, width)


class Perceptron(nn.Sequential):
    """Linear, SiLU, linear: (b, width_in) -> (b, width)."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(width, width)
