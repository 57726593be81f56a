"""The bricks of the networks: residual blocks, changes of size, the time embedding, attention."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def zero(module: M) -> M:
    """The module with all its parameters set to zero.

    A residual block whose branch ends in it starts as the identity.
    """
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class GroupNorm(nn.GroupNorm):
    """Group normalisation that returns the dtype it is given; its kernels sum in float32 anyway.

    Autocast on CUDA would return float32, which doubles the memory of every activation, only for
    the next layer to cast it back.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            return super().forward(x)
        with torch.autocast("cuda", enabled=False):
            weight = self.weight.to(x.dtype)
            bias = self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, eps=self.eps)


class ResBlock(nn.Module):
    """Two convolutions with the time embedding between them (2006.11239, appendix B).

    Their result is added to the input: x (b, width_in, h, w) and emb (b, time_dim), which has been
    through SiLU, -> (b, width, h, w).

    scale_shift: the time scales and shifts what the second norm returns (AdaGN, 2105.05233,
                 section 3), instead of being added before it
    time_dim:    None for a block without time, as an autoencoder has them
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        time_dim: int | None,
        groups: int,
        eps: float,
        dropout: float = 0.0,
        scale_shift: bool = False,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = GroupNorm(groups, width_in, eps)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj: nn.Linear | None = None
        if time_dim is not None:
            self.time_emb_proj = nn.Linear(time_dim, 2 * width if scale_shift else width)
        self.norm2 = GroupNorm(groups, width, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(width, width, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is None:
            h = self.norm2(h)
        else:
            emb = self.time_emb_proj(emb)[:, :, None, None]  # (b, width or 2 width, 1, 1)
            if self.scale_shift:
                scale, shift = emb.chunk(2, dim=1)
                h = self.norm2(h) * (1 + scale) + shift
            else:
                h = self.norm2(h + emb)
        h = self.conv2(self.dropout(F.silu(h)))
        shortcut: Tensor = self.conv_shortcut(x)
        return shortcut + h


class Downsample(nn.Module):
    """Half the size: (b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2))."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half: Tensor = self.conv(x)
        return half


class Upsample(nn.Module):
    """(b, c, h, w) -> (b, c, *size): the skip's size, so that odd sizes are restored.

    size None: twice h and w
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        scale = 2.0 if size is None else None
        x = F.interpolate(x, size=size, scale_factor=scale, mode="nearest")
        larger: Tensor = self.conv(x)
        return larger


class Sinusoidal(nn.Module):
    """Cosines and sines of t at frequencies falling from 1 towards 1/10000 (1706.03762, sec. 3.5).

    t (b,) -> (b, width), always float32: bfloat16 keeps 8 bits of t, to which 936 and 937 are the
    same number.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def angles(self, t: Tensor) -> Tensor:
        """Frequencies times t (b,) float32: (b, width / 2)."""
        n = self.width // 2
        k = torch.arange(n, dtype=torch.float32, device=t.device)
        return t[:, None] * torch.exp(-math.log(10000) * k / n)

    def forward(self, t: Tensor) -> Tensor:
        angle = self.angles(t.float())
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class Perceptron(nn.Sequential):
    """Linear, SiLU, linear: (b, width_in) -> (b, width)."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(width, width)


class ClassTable(nn.Module):
    """A learned row for each class, weighed by a vector: (b, classes) -> (b, width).

    One-hot picks a row, several ones add several rows up, zeros pick none.
    """

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width))
        nn.init.normal_(self.weight)

    def forward(self, vector: Tensor) -> Tensor:
        return vector @ self.weight


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; on the CPU in float32, as bfloat16 takes four times as long."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
        return out.to(q.dtype)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with several heads (1706.03762, eq. 1): x (b, n, c) -> (b, n, c).

    Keys and values come from context (b, m, context_width), or from x itself where there is none.
    mask (b, 1, 1, m) bool is True where a token may be seen; every row must see at least one.
    """

    def __init__(
        self, width: int, heads: int, context_width: int | None = None, bias: bool = False
    ):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias)
        self.to_k = nn.Linear(context_width or width, width, bias)
        self.to_v = nn.Linear(context_width or width, width, bias)
        # a sequence of one, because the published names are to_out.0.weight and to_out.0.bias
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if context is None:
            context = x
        q = self._split(self.to_q(x))  # (b, heads, n, d)
        k = self._split(self.to_k(context))  # (b, heads, m, d)
        v = self._split(self.to_v(context))  # (b, heads, m, d)
        attended = rearrange(_attend(q, k, v, mask), "b heads n d -> b n (heads d)")
        out: Tensor = self.to_out(attended)
        return out

    def _split(self, y: Tensor) -> Tensor:
        """The heads side by side: (b, n, c) -> (b, heads, n, d)."""
        return rearrange(y, "b n (heads d) -> b heads n d", heads=self.heads)


class SelfAttention(Attention):
    """Group norm, then attention among the positions, added to x (b, c, h, w).

    groups: of the norm; 0 leaves it out. It takes tokens as Transformer does, and ignores them.
    """

    def __init__(self, width: int, heads: int, groups: int, eps: float):
        super().__init__(width, heads, bias=True)
        self.group_norm: nn.Module = nn.Identity()
        if groups:
            self.group_norm = GroupNorm(groups, width, eps)
        zero(self.to_out)

    def forward(
        self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        h = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        return x + rearrange(super().forward(h), "b (h w) c -> b c h w", h=x.shape[2])


class GEGLU(nn.Module):
    """Half of a linear map times the GELU of the other half (2002.05202, eq. 5)."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.proj = nn.Linear(width_in, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.proj(x)
        value, gate = projected.chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width, and a linear layer back: (b, n, c) -> (b, n, c)."""

    def __init__(self, width: int):
        super().__init__()
        # the identity keeps the published names, net.0.proj and net.2: they have a dropout there
        self.net = nn.Sequential(
            GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the tokens, feed-forward: (b, n, c) -> (b, n, c).

    Each is preceded by its norm and added to its input.
    """

    def __init__(self, width: int, heads: int, token_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, token_dim)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), tokens, mask)
        x = x + self.ff(self.norm3(x))
        return x


class Transformer(nn.Module):
    """Transformer blocks over the positions of an image (2112.10752, appendix E.2.1).

    Their result is added to x (b, c, h, w). The ways in and out are 1x1 convolutions or, with
    linear, linear layers: the same map, with the weights in another shape.
    """

    def __init__(
        self, width: int, heads: int, token_dim: int, depth: int, groups: int, linear: bool
    ):
        super().__init__()
        self.linear = linear
        self.norm = GroupNorm(groups, width, 1e-6)
        self.proj_in = self._projection(width)
        self.proj_out = zero(self._projection(width))
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads, token_dim) for _ in range(depth)
        )

    def _projection(self, width: int) -> nn.Module:
        return nn.Linear(width, width) if self.linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        h: Tensor = self.norm(x)
        if self.linear:
            h = self.proj_in(rearrange(h, "b c h w -> b (h w) c"))
        else:
            h = rearrange(self.proj_in(h), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            h = block(h, tokens, mask)
        if self.linear:
            h = rearrange(self.proj_out(h), "b (h w) c -> b c h w", h=x.shape[2])
        else:
            h = self.proj_out(rearrange(h, "b (h w) c -> b c h w", h=x.shape[2]))
        return x + h
