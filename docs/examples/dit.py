"""A diffusion transformer (DiT, 2212.09748), an example of the Denoiser contract.

    python train.py --network docs.examples.dit:build
    python sample.py --steps 50

The network sees the latent as a sequence of patches. Time and vector steer each block through its
norms (adaLN-zero, section 3.2); text comes in by cross-attention, as in PixArt-alpha (2310.00426,
section 2.3); maps are concatenated to x_t. At first each block is the identity, and the network
predicts zero.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from tinyldm import Condition
from tinyldm.errors import InputError
from tinyldm.nn.blocks import Attention, Perceptron, Sinusoidal, zero

PATCH = 2  # the side of a patch, the "/2" of DiT-XL/2
TIME_FEATURES = 256  # the width of the sinusoids of t (published code)


def build(
    channels: int,
    size: tuple[int, int],
    token_dim: int | None,
    vector_dim: int | None,
    map_channels: int,
) -> nn.Module:
    """The network for a run: train.py calls this with what it finds in the data (DataShape)."""
    told = {"token_dim": token_dim, "vector_dim": vector_dim, "map_channels": map_channels}
    # Table 1 has DiT-S with (384, 12, 6) and DiT-B with (768, 12, 12). This one suits the toy set.
    return DiT(channels, size, **told, width=256, depth=8, heads=4)


class DiT(nn.Module):
    """(x_t (b, channels, *size), t (b,), condition) -> prediction, shaped and typed like x_t.

    Condition.tokens need token_dim, Condition.vector needs vector_dim, Condition.maps map_channels.
    width: of the sequence, a multiple of 4; depth: the number of blocks; heads: of each attention
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        token_dim: int | None = None,
        vector_dim: int | None = None,
        map_channels: int = 0,
        width: int,
        depth: int,
        heads: int,
    ):
        super().__init__()
        if size[0] % PATCH or size[1] % PATCH:
            raise InputError(f"latents of {size[0]}x{size[1]}: a DiT needs multiples of {PATCH}")
        self.rows = size[0] // PATCH
        self.patchify = nn.Conv2d(channels + map_channels, width, PATCH, stride=PATCH)
        positions = grid_positions(self.rows, size[1] // PATCH, width)
        self.register_buffer("positions", positions, persistent=False)  # (n, width), not learned

        self.time_features = Sinusoidal(TIME_FEATURES)
        self.time = Perceptron(TIME_FEATURES, width)
        self.vector = Perceptron(vector_dim, width) if vector_dim else None
        # A token that is always seen, so that a caption of no words has something to attend to.
        self.nothing = nn.Parameter(torch.zeros(1, 1, token_dim)) if token_dim else None

        self.blocks = nn.ModuleList(Block(width, heads, token_dim) for _ in range(depth))
        self.norm = plain_norm(width)
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 2 * width)))
        self.unpatchify = zero(nn.Linear(width, PATCH * PATCH * channels))

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        condition = condition or Condition()
        x = x_t
        if condition.maps is not None:
            x = torch.cat([x, condition.maps.to(x)], dim=1)  # (b, channels + map_channels, h, w)
        x = rearrange(self.patchify(x), "b c h w -> b (h w) c")  # (b, n, width)
        x = x + self.positions

        c = self.time(self.time_features(t.to(x_t.device)))  # (b, width)
        if self.vector is not None:
            c = c + self.vector(condition.vector)
        tokens, mask = self.tokens(condition)
        for block in self.blocks:
            x = block(x, c, tokens, mask)

        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)  # (b, 1, width) each
        x = self.unpatchify(modulate(self.norm(x), shift, scale))  # (b, n, p * p * channels)
        x = rearrange(x, "b (h w) (p q c) -> b c (h p) (w q)", h=self.rows, p=PATCH, q=PATCH)
        return x.to(x_t.dtype)  # (b, channels, h, w)

    def tokens(self, condition: Condition) -> tuple[Tensor | None, Tensor | None]:
        """The tokens (b, 1 + m, token_dim) and which of them are seen, (b, 1, 1, 1 + m) bool."""
        if self.nothing is None:
            return None, None
        tokens, mask = condition.tokens, condition.mask
        if mask is None:
            mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)  # (b, m)
        first = self.nothing.expand(len(tokens), 1, -1)  # (b, 1, token_dim)
        seen = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)  # (b, 1 + m)
        return torch.cat([first, tokens], dim=1), seen[:, None, None]


class Block(nn.Module):
    """Self-attention, cross-attention and a perceptron (figure 3): (b, n, width) -> (b, n, width).

    c (b, width) shifts and scales what goes into the first and the last, and gates what comes out.
    """

    def __init__(self, width: int, heads: int, token_dim: int | None):
        super().__init__()
        self.norm_self = plain_norm(width)
        self.self_attention = Attention(width, heads, bias=True)
        self.cross_attention = None
        if token_dim is not None:
            self.norm_cross = nn.LayerNorm(width)
            self.cross_attention = Attention(width, heads, token_dim)
            zero(self.cross_attention.to_out)
        self.norm_mlp = plain_norm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 6 * width)))

    def forward(self, x: Tensor, c: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        steering = self.modulation(c)[:, None].chunk(6, dim=-1)  # (b, 1, width) each
        shift_self, scale_self, gate_self, shift_mlp, scale_mlp, gate_mlp = steering
        x = x + gate_self * self.self_attention(modulate(self.norm_self(x), shift_self, scale_self))
        if self.cross_attention is not None:
            x = x + self.cross_attention(self.norm_cross(x), tokens, mask)
        return x + gate_mlp * self.mlp(modulate(self.norm_mlp(x), shift_mlp, scale_mlp))


def plain_norm(width: int) -> nn.LayerNorm:
    """A layer norm without scale and shift of its own: adaLN brings them (section 3.2)."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (b, n, width), scaled around one and shifted, so that zeros leave it as it is."""
    return x * (1 + scale) + shift


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Sinusoids of the row and of the column of each place in a grid: (rows * columns, width)."""
    features = Sinusoidal(width // 2)
    of_row = features(torch.arange(rows))[:, None].expand(rows, columns, -1)
    of_column = features(torch.arange(columns))[None].expand(rows, columns, -1)
    return rearrange(torch.cat([of_row, of_column], dim=-1), "h w c -> (h w) c")
