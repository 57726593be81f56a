"""How much of a picture a copy keeps: PSNR and SSIM, and both over the reconstructions of an autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(a: Tensor, b: Tensor, span: float = 2.0) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB; a, b: (b, ...); span: largest minus smallest possible value."""
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(span**2 / error)


def ssim(a: Tensor, b: Tensor, span: float = 2.0) -> Tensor:
    """Structural similarity of each picture, 1 for equal ones (Wang et al. 2004, eq. 13), the mean over its colours.

    a, b: (b, c, h, w), sides of at least 11; weights: a Gaussian of sigma 1.5 on 11 x 11 pixels, wholly inside.
    """
    if min(a.shape[-2:]) < 11:
        raise ValueError(f"SSIM of {a.shape[-1]}x{a.shape[-2]} pixels, expected at least 11x11")
    c = a.shape[1]
    line = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    line = (line / line.sum()).expand(c, 1, 1, 11).to(a.device)

    def local_mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, line, groups=c), line.transpose(2, 3), groups=c)

    a, b = a.double(), b.double()
    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a, variance_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (
        (likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
        .flatten(1)
        .mean(1)
    )
