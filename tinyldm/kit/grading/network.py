"""The exercises guidance and attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .compare import compare, demand, normal, refused


class KnownLambdas:
    """In a schedule's place: sigma / alpha of four samples is 7.4, 1, 1 and 0.14."""

    def lambda_(self, t: Tensor) -> Tensor:
        """log(alpha / sigma) at t (4,), whatever t is."""
        return torch.tensor([-2.0, 0.0, 0.0, 2.0])


def check_guidance() -> None:
    """A denoiser that says what it was asked for, and counts the rows that it is called with."""
    from tinyldm.condition import Condition
    from tinyldm.diffusion.guidance import Guidance

    rows: list[int] = []

    def denoiser(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        rows.append(len(x))
        return x * condition.vector.view(-1, 1, 1, 1)

    x, t = normal(4, 3, 20, 20), torch.arange(4.0)
    asked = Condition(vector=torch.tensor([[1.0], [2.0], [-1.0], [0.5]]))
    null = Condition(vector=torch.tensor([[0.25]]))
    factor, none = asked.vector.view(-1, 1, 1, 1), 0.25  # type: ignore[union-attr]
    for scale in (3.0, -1.0):
        got = Guidance(scale, null)(denoiser)(x, t, asked)
        mistakes = {
            "you go beyond the conditional prediction, by 1 + scale": x
            * (factor + scale * (factor - none)),
            "null and conditional changed places": x * (factor + scale * (none - factor)),
            "the null prediction is missing": x * scale * (factor - none),
            "the difference has the other sign": x * (none - scale * (factor - none)),
            "there is no guidance": x * factor,
        }
        expected = x * (none + scale * (factor - none))
        compare(f"prediction with scale {scale:g}", got, expected, mistakes)
    for scale, expected, which in ((1.0, x * factor, "condition"), (0.0, x * none, "null")):
        rows.clear()
        got = Guidance(scale, null)(denoiser)(x, t, asked)
        compare(f"prediction with scale {scale:g}", got, expected)
        demand(
            sum(rows) == 4,
            f"with scale {scale:g} you call the network for {sum(rows)} rows, expected 4: those "
            f"with the {which} are enough",
        )
    lambdas: Any = KnownLambdas()
    guided = Guidance(3.0, null, interval=(0.5, 2.0), schedule=lambdas)(denoiser)
    scales = torch.tensor([1.0, 3.0, 3.0, 1.0]).view(-1, 1, 1, 1)
    mistakes = {"the interval does nothing": x * (none + 3.0 * (factor - none))}
    expected = x * (none + scales * (factor - none))
    compare("prediction with an interval", guided(x, t, asked), expected, mistakes)
    plain = Guidance(3.0, null)(denoiser)(x, t, asked)
    spread = [(x * factor).flatten(1).std(1), plain.flatten(1).std(1)]
    expected = plain * (spread[0] / spread[1]).view(-1, 1, 1, 1)
    got = Guidance(3.0, null, rescale=1.0)(denoiser)(x, t, asked)
    compare("prediction with rescale 1", got, expected, {"rescale does nothing": plain})
    refused(lambda: Guidance(3.0, null)(denoiser)(x, t, None), "without a condition")


def check_attention() -> None:
    """Row by row and head by head, in plain loops."""
    from tinyldm.nn import blocks

    b, heads, n, m, d = 2, 3, 4, 5, 6
    q, k, v = normal(b, heads, n, d), normal(b, heads, m, d, seed=1), normal(b, heads, m, d, seed=2)
    mask = torch.ones(b, 1, 1, m, dtype=torch.bool)
    mask[0, ..., 3:] = False
    mask[1, ..., :1] = False

    def loops(scale: float, seen: Tensor) -> Tensor:
        out = torch.zeros(b, heads, n, d)
        for i in range(b):
            for h in range(heads):
                for row in range(n):
                    dots = [float(q[i, h, row] @ k[i, h, j]) * scale for j in range(m)]
                    weights = [math.exp(dot) * bool(seen[i, 0, 0, j]) for j, dot in enumerate(dots)]
                    for j, weight in enumerate(weights):
                        out[i, h, row] += weight / sum(weights) * v[i, h, j]
        return out

    everyone = torch.ones_like(mask)
    scores = q @ k.transpose(-1, -2)
    mistakes = {
        "the scores are not divided by sqrt(d)": loops(1.0, everyone),
        "the scores are divided by d, not by its root": loops(1 / d, everyone),
        "the softmax runs over the queries": (scores / d**0.5).softmax(-2) @ v,
        "the softmax is missing": scores / d**0.5 @ v,
    }
    exact = loops(d**-0.5, everyone)
    compare("attention", blocks._attend(q, k, v, None), exact, mistakes)
    mistakes = {
        "the mask does nothing": exact,
        "the mask is upside down": loops(d**-0.5, ~mask),
        "masked tokens get no weight, but the rest is not normalised again": (
            (scores / d**0.5).softmax(-1) * mask @ v
        ),
        "scores are multiplied by the mask: a score of 0 is seen, one of -inf is not": (
            (scores / d**0.5 * mask).softmax(-1) @ v
        ),
    }
    got = blocks._attend(q, k, v, mask)
    compare("attention with a mask", got, loops(d**-0.5, mask), mistakes)
    check_heads(blocks)


def check_heads(blocks: Any) -> None:
    """Attention.forward, with an attention of the grader's own in _attend's place."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return torch.einsum("bhnm,bhmd->bhnd", scores.softmax(-1), v)

    own, blocks._attend = blocks._attend, attend
    try:
        torch.manual_seed(0)
        module = blocks.Attention(8, 2, context_width=5)
        alone = blocks.Attention(8, 2)
        x, context = normal(3, 4, 8), normal(3, 6, 5, seed=1)
        mask = torch.ones(3, 1, 1, 6, dtype=torch.bool)
        mask[1, ..., 2:] = False

        def by_hand(net: Any, source: Tensor, seen: Tensor | None, turned: bool = True) -> Tensor:
            pairs = zip((net.to_q, net.to_k, net.to_v), (x, source, source), strict=True)
            q, k, v = [layer(y).chunk(2, -1) for layer, y in pairs]
            heads = [
                attend(q[h][:, None], k[h][:, None], v[h][:, None], seen)[:, 0] for h in (0, 1)
            ]
            side_by_side = torch.cat(heads, -1)
            return net.to_out(side_by_side if turned else torch.stack(heads, 1).view_as(x))

        with torch.no_grad():
            expected = by_hand(module, context, mask)
            mistakes = {
                "the mask does not get to _attend": by_hand(module, context, None),
                "(b, heads, n, d) is reshaped as it is: (b, n, heads, d) has the heads of a "
                "position side by side": by_hand(module, context, mask, turned=False),
            }
            compare("output of Attention", module(x, context, mask), expected, mistakes)
            compare("output of Attention without a context", alone(x), by_hand(alone, x, None))
    finally:
        blocks._attend = own
