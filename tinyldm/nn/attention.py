"""Attention of positions to each other and to the tokens of a condition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .resblock import GroupNorm, zero


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; on the CPU in float32, where bfloat16 takes four times as long to train."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).to(q.dtype)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with several heads (1706.03762, eq. 1): x (b, n, c) -> (b, n, c).

    Keys and values come from context (b, m, c2), else from x itself. mask (b, 1, 1, m) bool is True where a token
    may be seen, and every row must see at least one.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias)
        self.to_k = nn.Linear(context_width or width, width, bias)
        self.to_v = nn.Linear(context_width or width, width, bias)
        self.to_out = nn.Sequential(nn.Linear(width, width))  # a list of one: the published names are to_out.0.*

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (rearrange(y, "b n (heads d) -> b heads n d", heads=self.heads)
                   for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        out = _attend(q, k, v, mask)  # (b, heads, n, d)
        return self.to_out(rearrange(out, "b heads n d -> b n (heads d)"))


class SelfAttention(Attention):
    """Group norm and attention among the positions, added to x (b, c, h, w); it has no use for tokens."""

    def __init__(self, width: int, heads: int, groups: int, eps: float):
        super().__init__(width, heads, bias=True)
        self.group_norm = GroupNorm(groups, width, eps) if groups else nn.Identity()
        zero(self.to_out)

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        h = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        return x + rearrange(super().forward(h), "b (h w) c -> b c h w", h=x.shape[2])


class GEGLU(nn.Module):
    """Half of a linear map times the GELU of the other half (2002.05202, eq. 6)."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.proj = nn.Linear(width_in, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the tokens, feed-forward; each after its norm and added: (b, n, c)."""

    def __init__(self, width: int, heads: int, token_dim: int):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads, token_dim)
        net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))
        self.norm3, self.ff = nn.LayerNorm(width), nn.ModuleDict({"net": net})  # ff.net.0.proj and ff.net.2

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), tokens, mask)
        return x + self.ff["net"](self.norm3(x))


class Transformer(nn.Module):
    """Transformer blocks over the positions of an image (2112.10752, appendix E.2.1), added to x (b, c, h, w).

    The way in and out is a 1x1 convolution or, with linear, a linear layer: the same map, stored in another shape.
    """

    def __init__(self, width: int, heads: int, token_dim: int, depth: int, groups: int, linear: bool):
        super().__init__()
        self.norm = GroupNorm(groups, width, 1e-6)
        self.proj_in, self.proj_out = (nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1) for _ in "io")
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width, heads, token_dim) for _ in range(depth))
        zero(self.proj_out)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        h = rearrange(self.norm(x), "b c h w -> b (h w) c")
        h = F.linear(h, self.proj_in.weight.flatten(1), self.proj_in.bias)
        for block in self.transformer_blocks:
            h = block(h, tokens, mask)
        h = F.linear(h, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return x + rearrange(h, "b (h w) c -> b c h w", h=x.shape[2])
