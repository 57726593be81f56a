"""The conditional UNet (2006.11239, appendix B; 2112.10752, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.condition import Condition
from tinyldm.nn.blocks import (
    Downsample,
    Fourier,
    GroupNorm,
    Perceptron,
    ResBlock,
    SelfAttention,
    Sinusoidal,
    Transformer,
    Upsample,
    zero,
)
from tinyldm.nn.config import UNetConfig

__all__ = ["UNet", "UNetConfig"]


class Level(nn.Module):
    """The ResBlocks of one size and the attention after each; then a change of size, if any.

    widths: (in, out) of each ResBlock. The last one goes without attention where there is one attention less.
    """

    def __init__(
        self, config: UNetConfig, widths: list[tuple[int, int]], attentions: list[nn.Module]
    ):
        super().__init__()
        shape = (config.time_width, config.groups, config.eps, config.dropout, config.scale_shift)
        self.resnets = nn.ModuleList(ResBlock(a, b, *shape) for a, b in widths)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def forward(
        self, k: int, x: Tensor, emb: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """ResBlock k and its attention: (b, c, h, w) -> (b, c', h, w)."""
        x = self.resnets[k](x, emb)
        return self.attentions[k](x, tokens, mask) if k < len(self.attentions) else x


class UNet(nn.Module):
    """A denoiser, (x_t, t, condition) -> prediction, whatever the prediction means.

    Structure and parameter names are those of the published Stable Diffusion 1.x, so that such weights fit. Every
    residual branch and the output start at zero: the network is the identity of its skips, and predicts zero.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config, c = config, config.channels
        self.conv_in = nn.Conv2d(config.in_channels + config.map_channels, c[0], 3, padding=1)
        if config.time_embedding == "sinusoidal":
            self.time_proj = Sinusoidal(c[0], config.flip_sin_to_cos, config.freq_shift)
        else:
            log = config.time_embedding == "log_fourier"
            self.time_proj = Fourier(
                2 * c[0] if log else config.time_width, config.flip_sin_to_cos, log
            )
        self.time_embedding = Perceptron(self.time_proj.width, config.time_width)
        if config.classes:
            self.class_embedding = nn.Embedding(config.classes, config.time_width)
        elif config.vector_dim:
            self.class_embedding = Perceptron(config.vector_dim, config.time_width)

        self.down_blocks, self.up_blocks, skips, width = (
            nn.ModuleList(),
            nn.ModuleList(),
            [c[0]],
            c[0],
        )
        for i, n in enumerate(config.blocks):
            level = Level(
                config, [(width, c[i])] + [(c[i], c[i])] * (n - 1), _attentions(config, i, n)
            )
            skips, width = skips + [c[i]] * n, c[i]
            if i < len(c) - 1:
                level.downsamplers.append(Downsample(width))
                skips.append(width)
            self.down_blocks.append(level)

        n = config.middle_blocks
        self.mid_block = Level(config, [(width, width)] * n, _attentions(config, None, n - 1))
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

    def forward(self, x: Tensor, t: Tensor | float, condition: Condition | None = None) -> Tensor:
        """x (b, c, h, w), any h and w; t (b,) or a scalar, on any device -> (b, out_channels, h, w) in x's dtype."""
        self._check(x, t, condition)
        dtype = self.conv_in.weight.dtype
        emb = F.silu(self._embed(x, t, condition))  # (b, time_width)
        tokens, mask = self._tokens(condition, dtype)

        h = torch.cat([x, condition.maps.to(x.dtype)], dim=1) if self.config.map_channels else x
        h = self.conv_in(h.to(dtype))
        skips = [h]
        for level in self.down_blocks:
            for k in range(len(level.resnets)):
                h = level(k, h, emb, tokens, mask)
                skips.append(h)
            for downsample in level.downsamplers:
                h = downsample(h)
                skips.append(h)
        for k in range(len(self.mid_block.resnets)):
            h = self.mid_block(k, h, emb, tokens, mask)
        for level in self.up_blocks:
            for k in range(len(level.resnets)):
                h = level(k, torch.cat([h, skips.pop()], dim=1), emb, tokens, mask)
            for upsample in level.upsamplers:
                h = upsample(h, skips[-1].shape[-2:])
        return self.conv_out(F.silu(self.conv_norm_out(h))).to(x.dtype)

    def _embed(self, x: Tensor, t: Tensor | float, condition: Condition | None) -> Tensor:
        """The time embedding plus what the vector adds to it: (b, time_width)."""
        t = (
            torch.as_tensor(t, dtype=torch.float32).to(x.device, non_blocking=True).expand(len(x))
        )  # (b,)
        emb = self.time_embedding(self.time_proj(t).to(self.conv_in.weight.dtype))
        if self.config.vector_width:
            vector = condition.vector.to(emb.dtype)
            emb = emb + (
                vector @ self.class_embedding.weight
                if self.config.classes
                else self.class_embedding(vector)
            )
        return emb

    def _tokens(
        self, condition: Condition | None, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """The tokens (b, n, c), masked ones zero, and the mask (b, 1, 1, n) for attention.

        A row without a valid token sees all of its tokens: they are zero, so are their values, and it stays finite.
        """
        if not self.config.reads_tokens:
            return None, None
        tokens, mask = condition.tokens.to(dtype), condition.mask
        if mask is None:
            return tokens, None
        return tokens.masked_fill(~mask[:, :, None], 0), (mask | ~mask.any(dim=1, keepdim=True))[
            :, None, None
        ]

    def _check(self, x: Tensor, t: Tensor | float, condition: Condition | None) -> None:
        """Refuse shapes that the network can't take, and parts of a condition that it has no use for."""
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels or 0 in x.shape:
            raise ValueError(
                f"UNet: x has shape {tuple(x.shape)}, expected (b, {config.in_channels}, h, w), not empty"
            )
        b, _, h, w = x.shape
        if isinstance(t, Tensor) and t.shape not in ((), (1,), (b,)):
            raise ValueError(f"UNet: t has shape {tuple(t.shape)}, expected ({b},) or a scalar")
        parts = {} if condition is None else condition.parts()
        if "mask" in parts and parts["mask"].dtype != torch.bool:
            raise ValueError(f"UNet: condition.mask is {parts['mask'].dtype}, expected torch.bool")
        for name, wanted, shape in (
            ("tokens", config.reads_tokens, (b, "n", config.token_dim)),
            ("vector", config.vector_width, (b, config.vector_width)),
            ("maps", config.map_channels, (b, config.map_channels, h, w)),
        ):
            got = tuple(parts[name].shape) if name in parts else None
            same = (
                got is not None
                and len(got) == len(shape)
                and all(a in ("n", s) for a, s in zip(shape, got))
            )
            if not (same if wanted else got is None):
                shape = str(shape).replace("'", "") if wanted else None
                raise ValueError(f"UNet: condition.{name} has shape {got}, expected {shape}")


def _attentions(config: UNetConfig, i: int | None, n: int) -> list[nn.Module]:
    """n attention modules for level i, or for the middle where i is None."""
    if i is None:
        i, kind, heads, groups = (
            -1,
            config.middle,
            config.middle_heads or config.heads[-1],
            config.middle_groups,
        )
        groups = config.groups if groups is None else groups
    else:
        kind, heads, groups = config.attention[i], config.heads[i], config.groups
    width = config.channels[i]
    if kind == "self":
        return [SelfAttention(width, heads, groups, config.eps) for _ in range(n)]
    if kind == "cross":
        shape = (
            width,
            heads,
            config.token_dim,
            config.depth[i],
            config.groups,
            config.linear_projection,
        )
        return [Transformer(*shape) for _ in range(n)]
    return []
