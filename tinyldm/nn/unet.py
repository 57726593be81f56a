"""The conditional UNet (2006.11239, appendix B; 2112.10752, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.condition import Condition
from tinyldm.nn.blocks import (
    ClassTable,
    Downsample,
    GroupNorm,
    Perceptron,
    ResBlock,
    SelfAttention,
    Sinusoidal,
    Transformer,
    Upsample,
    zero,
)
from tinyldm.nn.config import LevelShape, UNetConfig

__all__ = ["UNet", "UNetConfig"]


class UNetLevel(nn.Module):
    """ResBlocks of one size and the attention after each; then a change of size, if any.

    widths:     (in, out) of each ResBlock
    attentions: one for each ResBlock, or for each but the last, or none at all
    """

    def __init__(
        self, config: UNetConfig, widths: list[tuple[int, int]], attentions: list[nn.Module]
    ):
        super().__init__()
        self.resnets = nn.ModuleList()
        for width_in, width in widths:
            block = ResBlock(
                width_in=width_in,
                width=width,
                time_dim=config.time_width,
                groups=config.groups,
                eps=config.eps,
                dropout=config.dropout,
                scale_shift=config.scale_shift,
            )
            self.resnets.append(block)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def block(
        self, k: int, h: Tensor, emb: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """ResBlock k and its attention: (b, c, h, w) -> (b, c', h, w)."""
        h = self.resnets[k](h, emb)
        if k < len(self.attentions):
            h = self.attentions[k](h, tokens, mask)
        return h


class DownLevel(UNetLevel):
    """A level on the way down."""

    def forward(
        self, h: Tensor, emb: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> list[Tensor]:
        """(b, c, h, w) -> the output of each ResBlock, then the one of half the size, if any."""
        outputs = []
        for k in range(len(self.resnets)):
            h = self.block(k, h, emb, tokens=tokens, mask=mask)
            outputs.append(h)
        for downsample in self.downsamplers:
            h = downsample(h)
            outputs.append(h)
        return outputs


class MiddleLevel(UNetLevel):
    """The bottom."""

    def forward(self, h: Tensor, emb: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        for k in range(len(self.resnets)):
            h = self.block(k, h, emb, tokens=tokens, mask=mask)
        return h


class UpLevel(UNetLevel):
    """A level on the way up; each of its ResBlocks is given one output of the way down."""

    def forward(
        self,
        h: Tensor,
        emb: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        skips: list[Tensor],
    ) -> Tensor:
        """(b, c, h, w) -> (b, c', h', w'); takes from the end of skips what it uses."""
        for k in range(len(self.resnets)):
            h = torch.cat([h, skips.pop()], dim=1)
            h = self.block(k, h, emb, tokens=tokens, mask=mask)
        for upsample in self.upsamplers:
            h = upsample(h, skips[-1].shape[-2:])
        return h


class UNet(nn.Module):
    """A denoiser, (x_t, t, condition) -> prediction, whatever the prediction means.

    Structure and parameter names are those of the published Stable Diffusion 1.x, so that such
    weights fit. Every residual branch and the output start at zero: at first the network is the
    identity of its skips, and predicts zero.
    """

    class_embedding: nn.Module  # only where the config has classes or vector_dim

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        # the widths of tokens and vector; None where the network does not read them
        self._token_dim = config.token_dim if config.reads_tokens else None
        self._vector_dim = config.vector_width
        width = config.channels[0]
        in_channels = config.in_channels + config.map_channels
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time_proj = self.make_time_features()
        self.time_embedding = Perceptron(self.time_proj.width, config.time_width)
        if config.classes:
            self.class_embedding = ClassTable(config.classes, config.time_width)
        elif config.vector_dim:
            self.class_embedding = Perceptron(config.vector_dim, config.time_width)
        self.down_blocks = nn.ModuleList()
        self.up_blocks = nn.ModuleList()
        self._add_levels()
        self.conv_norm_out = GroupNorm(config.groups, width, config.eps)
        self.conv_out = zero(nn.Conv2d(width, config.out_channels, 3, padding=1))

    def _add_levels(self) -> None:
        """The way down, the middle, and the way up."""
        config, levels = self.config, self.config.levels
        width = config.channels[0]
        skips = [width]  # the widths of what the way down leaves for the way up
        for i, shape in enumerate(levels):
            widths = []
            for _ in range(shape.blocks):
                widths.append((width, shape.width))
                width = shape.width
                skips.append(width)
            down = DownLevel(config, widths, self.attentions_of(shape, len(widths)))
            if i < len(levels) - 1:
                down.downsamplers.append(Downsample(width))
                skips.append(width)
            self.down_blocks.append(down)

        n = config.middle_blocks
        self.mid_block = MiddleLevel(config, [(width, width)] * n, self.make_middle(n - 1))

        for i, shape in reversed(list(enumerate(levels))):
            widths = []
            for _ in range(shape.blocks + 1):
                widths.append((width + skips.pop(), shape.width))
                width = shape.width
            up = UpLevel(config, widths, self.attentions_of(shape, len(widths)))
            if i > 0:
                up.upsamplers.append(Upsample(width))
            self.up_blocks.append(up)

    def make_time_features(self) -> Sinusoidal:
        """What turns t (b,) into the input of the time embedding, (b, width)."""
        return Sinusoidal(self.config.channels[0])

    def make_middle(self, n: int) -> list[nn.Module]:
        """The n attention modules of the middle."""
        shape = self.config.levels[-1]._replace(attention=self.config.middle)
        return self.attentions_of(shape, n)

    def attentions_of(self, shape: LevelShape, n: int) -> list[nn.Module]:
        """n attention modules for a level of this shape; none where it has no attention."""
        if shape.attention == "none":
            return []
        return [self._attention(shape) for _ in range(n)]

    def _attention(self, shape: LevelShape) -> nn.Module:
        config = self.config
        if shape.attention == "self":
            return SelfAttention(shape.width, shape.heads, config.groups, config.eps)
        assert config.token_dim is not None  # UNetConfig has made sure
        return Transformer(
            width=shape.width,
            heads=shape.heads,
            token_dim=config.token_dim,
            depth=shape.depth,
            groups=config.groups,
            linear=config.linear_projection,
        )

    def forward(self, x: Tensor, t: Tensor | float, condition: Condition | None = None) -> Tensor:
        """x (b, c, h, w), any h and w -> (b, out_channels, h, w) in x's dtype.

        t: (b,) or a scalar, on any device
        """
        h, skips, told = self.encode(x, t, condition or Condition())
        return self.decode(h, skips, told).to(x.dtype)

    def encode(
        self, x: Tensor, t: Tensor | float, condition: Condition
    ) -> tuple[Tensor, list[Tensor], dict[str, Any]]:
        """The way down and the middle: h, what is left for the way up, what each level is told."""
        self.check_inputs(x, t, condition)
        dtype = self.conv_in.weight.dtype
        tokens, mask = self._tokens(condition, dtype)
        told = {"emb": F.silu(self._embed(x, t, condition)), "tokens": tokens, "mask": mask}
        if condition.maps is not None:
            x = torch.cat([x, condition.maps.to(x.dtype)], dim=1)
        skips = [self.conv_in(x.to(dtype))]
        for level in self.down_blocks:
            skips += self.run(level, skips[-1], **told)
        return self.run(self.mid_block, skips[-1], **told), skips, told

    def decode(self, h: Tensor, skips: list[Tensor], told: dict[str, Any]) -> Tensor:
        """The way up, which uses up skips: (b, out_channels, h, w)."""
        for level in self.up_blocks:
            h = self.run(level, h, **told, skips=skips)
        prediction: Tensor = self.conv_out(F.silu(self.conv_norm_out(h)))
        return prediction

    def run(self, level: nn.Module, h: Tensor, **inputs: Any) -> Any:
        """What a level makes of h; a subclass may go about it in another way."""
        return level(h, **inputs)

    def _embed(self, x: Tensor, t: Tensor | float, condition: Condition) -> Tensor:
        """The time embedding plus what the vector adds to it: (b, time_width)."""
        t = torch.as_tensor(t, dtype=torch.float32).to(x.device, non_blocking=True)
        features = self.time_proj(t.expand(len(x)))  # (b, width) float32
        emb: Tensor = self.time_embedding(features.to(self.conv_in.weight.dtype))
        if condition.vector is not None:
            emb = emb + self.class_embedding(condition.vector.to(emb.dtype))
        return emb

    def _tokens(
        self, condition: Condition, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """The tokens (b, n, c), masked ones zero, and the mask (b, 1, 1, n) for attention.

        A row without a valid token sees all of its tokens: they are zero and so are their values,
        and the result stays finite.
        """
        if condition.tokens is None:
            return None, None
        tokens, mask = condition.tokens.to(dtype), condition.mask
        if mask is None:
            return tokens, None
        seen = mask | ~mask.any(dim=1, keepdim=True)
        return tokens.masked_fill(~mask[:, :, None], 0), seen[:, None, None]

    def check_inputs(self, x: Tensor, t: Tensor | float, condition: Condition) -> None:
        """ValueError for shapes that the network can't take, or parts that it has no use for."""
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels or 0 in x.shape:
            expected = f"(b, {config.in_channels}, h, w), not empty"
            raise ValueError(f"UNet: x has shape {tuple(x.shape)}, expected {expected}")
        b, _, h, w = x.shape
        if isinstance(t, Tensor) and t.shape not in ((), (1,), (b,)):
            raise ValueError(f"UNet: t has shape {tuple(t.shape)}, expected ({b},) or a scalar")
        mask = condition.mask
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"UNet: condition.mask is {mask.dtype}, expected torch.bool")
        _check_part("tokens", condition.tokens, [b, "n", self._token_dim])
        _check_part("vector", condition.vector, [b, self._vector_dim])
        _check_part("maps", condition.maps, [b, config.map_channels, h, w])


def _check_part(name: str, part: Tensor | None, shape: Sequence[int | str | None]) -> None:
    """ValueError unless a part of the condition is there just where the network reads one.

    shape: what its shape has to be; "n" stands for any length, None or 0 for no use of the part
    """
    got, wanted = None if part is None else tuple(part.shape), all(shape)
    good = got is None and not wanted
    if got is not None and wanted and len(got) == len(shape):
        good = all(side in ("n", size) for side, size in zip(shape, got, strict=True))
    if not good:
        text = f"({', '.join(map(str, shape))})" if wanted else None
        raise ValueError(f"UNet: condition.{name} has shape {got}, expected {text}")
