"""Which tokens each position of the picture looks at: the weights of the cross-attentions.

    with record_attention(network) as maps:
        network(x_t, t, condition)
    heat = over_the_picture(maps, x_t.shape[-2:])  # (b, n, h, w): token k is heat[:, k]

The fused kernel returns no weights, so they are computed once more, from the layer's inputs. The
network's own results stay the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.nn.blocks import Attention

Maps = dict[str, Tensor]  # name of the layer -> (b, heads, h*w, n)


@contextmanager
def record_attention(network: nn.Module) -> Iterator[Maps]:
    """While it is open, the weights of the network's last call, for each layer that reads tokens.

    They are (b, heads, h*w, n) float32, by the name of the layer, from the way down to the way up;
    over the n tokens they sum to 1. Each call writes over those of the call before. A call under
    guidance has 2 b rows: those of the condition, and then those of the null condition.
    """
    maps: Maps = {}
    handles = []
    try:
        for name, module in network.named_modules():
            if isinstance(module, Attention):
                hook = partial(_record, maps, name)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _record(
    maps: Maps, name: str, module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any
) -> None:
    """A forward hook: keep the weights of a layer that was given a context."""
    given = dict(zip(("x", "context", "mask"), args, strict=False), **kwargs)
    if given.get("context") is not None:
        maps[name] = attention_weights(module, **given)


@torch.no_grad()
def attention_weights(
    module: Attention, x: Tensor, context: Tensor, mask: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(d)) of an attention (1706.03762, eq. 1): (b, heads, n, m) float32.

    x, context, mask: what its forward is given
    """
    q = module.to_q(x).float().unflatten(-1, (module.heads, -1))  # (b, n, heads, d)
    k = module.to_k(context).float().unflatten(-1, (module.heads, -1))  # (b, m, heads, d)
    with torch.autocast(q.device.type, enabled=False):  # in which einsum would be bfloat16
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def over_the_picture(maps: Maps, size: tuple[int, int]) -> Tensor:
    """How much each position looks at each token: (b, n, h, w), the mean over layers and heads.

    size: (h, w) of x_t. A layer at a smaller size is enlarged, and its cells stay squares.
    """
    if not maps:
        raise ValueError(
            "no attention was recorded: the network reads no tokens, or was not called"
        )
    enlarged = []
    for weights in maps.values():
        per_token = weights.mean(dim=1).transpose(1, 2)  # (b, n, h*w)
        squares = per_token.unflatten(-1, _size_of(per_token.shape[-1], size))
        enlarged.append(F.interpolate(squares, size=size, mode="nearest"))
    return torch.stack(enlarged).mean(dim=0)


def _size_of(positions: int, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of a level with h w positions; every level halves the one before, rounding up."""
    h, w = size
    while h * w > positions:
        h, w = (h + 1) // 2, (w + 1) // 2
    if h * w != positions:
        raise ValueError(f"{positions} positions are not those of a level of {size[0]}x{size[1]}")
    return h, w
