"""The convolutions of the network: residual blocks that know the time, and the two changes of size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero(module: nn.Module) -> nn.Module:
    """The module with all its parameters set to zero: a residual branch that ends in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class GroupNorm(nn.GroupNorm):
    """Group normalisation that returns the dtype it is given; its kernels sum in float32 anyway.

    Autocast on CUDA would return float32, doubling the memory of every activation only to cast it back.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            return super().forward(x)
        with torch.autocast("cuda", enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class ResBlock(nn.Module):
    """Two convolutions around the time (2006.11239, appendix B), added to the input.

    x (b, width_in, h, w), emb (b, time_dim) already through SiLU -> (b, width, h, w). The time is added between the
    convolutions, or with scale_shift scales and shifts the second norm (AdaGN, 2105.05233, section 3).
    """

    def __init__(self, width_in: int, width: int, time_dim: int, groups: int, eps: float, dropout: float,
                 scale_shift: bool):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = GroupNorm(groups, width_in, eps)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, 2 * width if scale_shift else width)
        self.norm2 = GroupNorm(groups, width, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(width, width, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        emb = self.time_emb_proj(emb)[:, :, None, None]  # (b, width or 2 width, 1, 1)
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + emb)
        return self.conv_shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class Downsample(nn.Sequential):
    """(b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2))."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """(b, c, h, w) -> (b, c, *size): size is the skip's, so that odd sizes come back as they were."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
