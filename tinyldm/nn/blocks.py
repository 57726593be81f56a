"""The convolutions of the network: residual blocks that know the time, and the two changes of size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
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
            return F.group_norm(
                x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
            )


class ResBlock(nn.Module):
    """Two convolutions around the time (2006.11239, appendix B), added to the input.

    x (b, width_in, h, w), emb (b, time_dim) already through SiLU -> (b, width, h, w). The time is
    added between the convolutions, or with scale_shift scales and shifts the second norm (AdaGN,
    2105.05233, section 3). time_dim None: a block without time, as an autoencoder has them.
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
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is None:
            h = self.norm2(h)
        else:
            emb = self.time_emb_proj(emb)[:, :, None, None]  # (b, width or 2 width, 1, 1)
            if self.scale_shift:
                scale, shift = emb.chunk(2, dim=1)
                h = self.norm2(h) * (1 + scale) + shift
            else:
                h = self.norm2(h + emb)
        return self.conv_shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class Downsample(nn.Module):
    """Half the size: (b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2)).

    asymmetric: pad at the right and the bottom alone, as the published autoencoders do; h and w must
    be even.
    """

    def __init__(self, width: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.asymmetric:
            x = F.pad(x, (0, 1, 0, 1))  # left, right, top, bottom
        return self.conv(x)


class Upsample(nn.Module):
    """(b, c, h, w) -> (b, c, *size): the skip's, so that odd sizes come back as they were.

    size None: twice h and w.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        scale = 2.0 if size is None else None
        return self.conv(F.interpolate(x, size=size, scale_factor=scale, mode="nearest"))


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
        self.linear_1, self.act, self.linear_2 = (
            nn.Linear(width_in, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; on the CPU in float32, where bfloat16 takes four times as long to train."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).to(
            q.dtype
        )


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with several heads (1706.03762, eq. 1): x (b, n, c) -> (b, n, c).

    Keys and values come from context (b, m, c2), else from x itself. mask (b, 1, 1, m) bool is True where a token
    may be seen, and every row must see at least one.
    """

    def __init__(
        self, width: int, heads: int, context_width: int | None = None, bias: bool = False
    ):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias)
        self.to_k = nn.Linear(context_width or width, width, bias)
        self.to_v = nn.Linear(context_width or width, width, bias)
        self.to_out = nn.Sequential(
            nn.Linear(width, width)
        )  # a list of one: the published names are to_out.0.*

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            rearrange(y, "b n (heads d) -> b heads n d", heads=self.heads)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        out = _attend(q, k, v, mask)  # (b, heads, n, d)
        return self.to_out(rearrange(out, "b heads n d -> b n (heads d)"))


class SelfAttention(Attention):
    """Group norm and attention among the positions, added to x (b, c, h, w); it has no use for tokens."""

    def __init__(self, width: int, heads: int, groups: int, eps: float):
        super().__init__(width, heads, bias=True)
        self.group_norm = GroupNorm(groups, width, eps) if groups else nn.Identity()
        zero(self.to_out)

    def forward(
        self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
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
        self.norm3, self.ff = (
            nn.LayerNorm(width),
            nn.ModuleDict({"net": net}),
        )  # ff.net.0.proj and ff.net.2

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), tokens, mask)
        return x + self.ff["net"](self.norm3(x))


class Transformer(nn.Module):
    """Transformer blocks over the positions of an image (2112.10752, appendix E.2.1), added to x (b, c, h, w).

    The way in and out is a 1x1 convolution or, with linear, a linear layer: the same map, stored in another shape.
    """

    def __init__(
        self, width: int, heads: int, token_dim: int, depth: int, groups: int, linear: bool
    ):
        super().__init__()
        self.norm = GroupNorm(groups, width, 1e-6)
        self.proj_in, self.proj_out = (
            nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1) for _ in "io"
        )
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads, token_dim) for _ in range(depth)
        )
        zero(self.proj_out)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        h = rearrange(self.norm(x), "b c h w -> b (h w) c")
        h = F.linear(h, self.proj_in.weight.flatten(1), self.proj_in.bias)
        for block in self.transformer_blocks:
            h = block(h, tokens, mask)
        h = F.linear(h, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return x + rearrange(h, "b (h w) c -> b c h w", h=x.shape[2])
