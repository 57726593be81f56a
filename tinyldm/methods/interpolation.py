"""From one picture to another: between two noises, spherically. Between prompts: composition.py."""

from __future__ import annotations

import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Between two noises (Shoemake, 1985; used for this in 2010.02502).

        x = sin((1 - share) theta) / sin theta a + sin(share theta) / sin theta b

    where theta is the angle between a and b. Two independent noises of n numbers have the length
    sqrt(n), nearly, and are nearly orthogonal. What lies between them on the sphere is as likely a
    noise as they are; a point halfway on the straight line would be shorter by sqrt(2), and no
    network was ever shown such noise.

    a, b:  (b or 1, ...)
    share: (b,), 0 gives a and 1 gives b
    """
    ones = (1,) * (a.ndim - 1)
    share = share.to(a).view(-1, *ones)
    a_unit, b_unit = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True) for x in (a, b))
    cosine = (a_unit * b_unit).sum(1).clamp(-1, 1).view(-1, *ones)
    theta = cosine.acos()
    small = theta.sin() < 1e-4  # parallel: the formula is 0 / 0, and its limit is the straight line
    sine = torch.where(small, 1, theta.sin())
    left = torch.where(small, 1 - share, ((1 - share) * theta).sin() / sine)
    right = torch.where(small, share, (share * theta).sin() / sine)
    return left * a + right * b
