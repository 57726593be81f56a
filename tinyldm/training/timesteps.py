"""Which timesteps a run is trained at, where not at all of them alike."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_timesteps(how: str, n: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """n whole timesteps (n,) from 0 to T - 1.

    t is u T, rounded down, where u lies between 0 and 1 and how says what it follows:

    'logit-normal': log(u / (1 - u)) is N(0, 1), so that u is mostly in the middle and hardly ever
                    at the ends (2403.03206, eq. 19, with m = 0 and s = 1)
    'stratified':   u_i = (u_0 + i / n) mod 1 with one uniform u_0: each is uniform, and the n of
                    them are spread evenly (2107.00630, appendix I.1)
    """
    if how == "logit-normal":
        u = torch.randn(n, generator=generator).sigmoid()
    elif how == "stratified":
        u = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
    else:
        raise ValueError(f"unknown way to draw timesteps {how!r}")
    return (u * timesteps).long().clamp(max=timesteps - 1)  # u may have been rounded to 1
