"""The conditional UNet (2006.11239, appendix B; 2112.10752, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..condition import Condition
from .attention import SelfAttention, Transformer
from .config import UNetConfig
from .embedding import Fourier, Perceptron, Sinusoidal
from .resblock import Downsample, GroupNorm, ResBlock, Upsample, zero

__all__ = ["UNet", "UNetConfig"]


class Level(nn.Module):
    """The ResBlocks of one size, each with the attention that follows it; then a change of size, if any.

    widths: (in, out) of each ResBlock; with fewer attentions than ResBlocks, the last go without.
    """

    def __init__(self, config: UNetConfig, widths: list[tuple[int, int]], attentions: list[nn.Module]):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(a, b, config.time_dim, config.groups, config.eps, config.dropout, config.scale_shift)
            for a, b in widths
        )
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def __len__(self) -> int:
        return len(self.resnets)

    def forward(self, k: int, x: Tensor, emb: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        """ResBlock k and its attention: (b, c, h, w) -> (b, c', h, w)."""
        x = self.resnets[k](x, emb)
        return self.attentions[k](x, tokens, mask) if k < len(self.attentions) else x


class UNet(nn.Module):
    """A denoiser: (x_t, t, condition) -> prediction, whatever the prediction means.

    Structure and parameter names are those of Stable Diffusion's UNet as published, so its weights fit.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        c = config.channels
        self.conv_in = nn.Conv2d(config.in_channels + config.map_channels, c[0], 3, padding=1)
        self.time_proj, width = _time_features(config)
        self.time_embedding = Perceptron(width, config.time_dim)
        if config.classes:
            self.class_embedding = nn.Embedding(config.classes, config.time_dim)
        elif config.vector_dim:
            self.class_embedding = Perceptron(config.vector_dim, config.time_dim)

        self.down_blocks, skips, width = nn.ModuleList(), [c[0]], c[0]
        for i, n in enumerate(config.blocks):
            level = Level(config, [(width, c[i])] + [(c[i], c[i])] * (n - 1), _attentions(config, i, n))
            width = c[i]
            skips += [width] * n
            if i < len(c) - 1:
                level.downsamplers.append(Downsample(width))
                skips.append(width)
            self.down_blocks.append(level)

        n = config.middle_blocks
        self.mid_block = Level(config, [(width, width)] * n, _attentions(config, -1, n - 1, config.middle))

        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(c))):
            widths = []
            for _ in range(config.blocks[i] + 1):
                widths.append((width + skips.pop(), c[i]))
                width = c[i]
            level = Level(config, widths, _attentions(config, i, len(widths)))
            if i > 0:
                level.upsamplers.append(Upsample(width))
            self.up_blocks.append(level)

        self.conv_norm_out = GroupNorm(config.groups, c[0], config.eps)
        self.conv_out = zero(nn.Conv2d(c[0], config.out_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x (b, c, h, w) of any size, t (b,) or a scalar, on any device -> (b, out_channels, h, w) in x's dtype."""
        self._check(x, condition)
        dtype = self.conv_in.weight.dtype  # under autocast, torch takes it from there
        emb = F.silu(self._embed(x, t, condition).to(dtype))  # (b, time_dim)
        tokens, mask = self._tokens(condition, dtype)

        h = x if not self.config.map_channels else torch.cat([x, condition.maps.to(x.dtype)], dim=1)
        h = self.conv_in(h.to(dtype))
        skips = [h]
        for level in self.down_blocks:
            for k in range(len(level)):
                h = level(k, h, emb, tokens, mask)
                skips.append(h)
            for downsample in level.downsamplers:
                h = downsample(h)
                skips.append(h)
        for k in range(len(self.mid_block)):
            h = self.mid_block(k, h, emb, tokens, mask)
        for level in self.up_blocks:
            for k in range(len(level)):
                h = level(k, torch.cat([h, skips.pop()], dim=1), emb, tokens, mask)
            for upsample in level.upsamplers:
                h = upsample(h, skips[-1].shape[-2:])
        return self.conv_out(F.silu(self.conv_norm_out(h))).to(x.dtype)

    def _embed(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """The time embedding plus what the vector adds to it: (b, time_dim)."""
        t = torch.as_tensor(t, dtype=torch.float32).to(x.device, non_blocking=True).expand(len(x))  # (b,)
        emb = self.time_embedding(self.time_proj(t).to(self.conv_in.weight.dtype))
        if self.config.vector_width:
            vector = condition.vector.to(emb.dtype)
            table = self.config.classes is not None
            emb = emb + (vector @ self.class_embedding.weight if table else self.class_embedding(vector))
        return emb

    def _tokens(self, condition: Condition | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Tokens (b, n, c), masked ones zero, and the mask (b, 1, 1, n) for attention.

        A row without a valid token sees all of its zero tokens, whose values are zero: finite, and nothing.
        """
        if not self.config.reads_tokens:
            return None, None
        tokens, mask = condition.tokens.to(dtype), condition.mask
        if mask is None:
            return tokens, None
        tokens = tokens.masked_fill(~mask[:, :, None], 0)
        return tokens, (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]

    def _check(self, x: Tensor, condition: Condition | None) -> None:
        """Refuse shapes that the network can't take, and parts of a condition that it has no use for."""
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels or 0 in x.shape:
            raise ValueError(f"UNet: x has shape {tuple(x.shape)}, expected (b, {config.in_channels}, h, w), not empty")
        b, _, h, w = x.shape
        parts = {} if condition is None else condition.parts()
        expected = {
            "tokens": (b, None, config.token_dim) if config.reads_tokens else None,
            "vector": (b, config.vector_width) if config.vector_width else None,
            "maps": (b, config.map_channels, h, w) if config.map_channels else None,
        }
        for name, shape in expected.items():
            got = tuple(parts[name].shape) if name in parts else None
            same = got is not None and shape is not None and len(got) == len(shape)
            if got != shape and not (same and all(a == b or b is None for a, b in zip(got, shape))):
                wanted = "none" if shape is None else f"shape {shape}".replace("None", "n")
                raise ValueError(f"UNet: condition.{name} has shape {got}, expected {wanted}")


def _time_features(config: UNetConfig) -> tuple[nn.Module, int]:
    """The module that makes features of t, and their number."""
    if config.time_embedding == "sinusoidal":
        return Sinusoidal(config.channels[0], config.flip_sin_to_cos, config.freq_shift), config.channels[0]
    log = config.time_embedding == "log_fourier"
    width = 2 * config.channels[0] if log else config.time_dim
    return Fourier(width, config.flip_sin_to_cos, 16.0 if log else 1.0, log), width


def _attentions(config: UNetConfig, i: int, n: int, kind: str | None = None) -> list[nn.Module]:
    """n attention modules for level i; with kind given, for the middle."""
    width, middle = config.channels[i], kind is not None
    kind, heads = (kind, config.middle_heads) if middle else (config.attention[i], config.heads[i])
    if kind == "self":
        groups = config.middle_groups if middle else config.groups
        return [SelfAttention(width, heads, groups, config.eps) for _ in range(n)]
    if kind == "cross":
        shape = (width, heads, config.token_dim, config.depth[i], config.groups, config.linear_projection)
        return [Transformer(*shape) for _ in range(n)]
    return []
