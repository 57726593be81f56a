"""Solutions of chapter 5, Conditioning."""

import math

import torch
from torch import Tensor

from tinyldm import Condition
from tinyldm.diffusion.sampler import Denoiser


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Exercise 1: softmax(q k^T / sqrt(d)) v.

    q: (b, heads, n, d); k, v: (b, heads, m, d); mask: (b, 1, 1, m) bool, True where a token is seen

    A factor of e^-largest above and below the line of the fraction cancels. Then the largest
    exponential is e^0 = 1, and none overflows.
    """
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (b, heads, n, m)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return powers @ v / powers.sum(dim=-1, keepdim=True)


def looked_at(weights: Tensor) -> Tensor:
    """Exercise 2: e to the entropy of weights (..., m), the number of tokens looked at: (...)."""
    return torch.special.entr(weights).sum(dim=-1).exp()  # entr(w) = -w log w, and 0 where w is 0


def exchanged(denoiser: Denoiser, then: Condition, t_switch: float) -> Denoiser:
    """Exercise 3: told its own condition above t_switch, and `then`, of one row, from there on."""

    def denoise(x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        if condition is None:
            raise ValueError("there is no condition to exchange")
        return denoiser(x_t, t, condition.drop(then.to(condition.device), t <= t_switch))

    return denoise
