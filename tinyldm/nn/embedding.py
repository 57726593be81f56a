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

    def angles(self, t: Tensor) -> Tensor:
        """Frequencies times t (b,) float32: (b, width / 2)."""
        k = torch.arange(self.width // 2, dtype=torch.float32, device=t.device)
        return t[:, None] * torch.exp(-math.log(10000) * k / (self.width // 2 - self.freq_shift))

    def forward(self, t: Tensor) -> Tensor:
        angle = self.angles(t.float())
        waves = (angle.cos(), angle.sin()) if self.flip_sin_to_cos else (angle.sin(), angle.cos())
        return torch.cat(waves, dim=-1)


class Fourier(Sinusoidal):
    """The same at fixed random frequencies (2006.10739) of t, or with log of log t, as networks told sigma have it."""

    def __init__(self, width: int, flip_sin_to_cos: bool, log: bool):
        super().__init__(width, flip_sin_to_cos)
        self.log = log
        self.register_buffer("weight", torch.randn(width // 2) * (16 if log else 1))

    def angles(self, t: Tensor) -> Tensor:
        return 2 * math.pi * (t.log() if self.log else t)[:, None] * self.weight.float()


class Perceptron(nn.Sequential):
    """Linear, SiLU, linear: (b, width_in) -> (b, width)."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.linear_1, self.act, self.linear_2 = nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width)
