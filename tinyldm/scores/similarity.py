"""How much of a picture a copy keeps, by PSNR and SSIM; how alike two pictures are in colour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(a: Tensor, b: Tensor, span: float = 2.0) -> Tensor:
    """The peak signal-to-noise ratio of each picture in dB, (b,).

    a, b: (b, ...); span: the largest possible value minus the smallest
    """
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(span**2 / error)


def ssim(a: Tensor, b: Tensor, span: float = 2.0) -> Tensor:
    """The structural similarity of each picture, (b,), 1 for equal ones (Wang et al. 2004, eq. 13).

    a, b: (b, c, h, w), with sides of at least 11. Local statistics are weighted by a Gaussian of
    sigma 1.5 on 11 x 11 pixels, placed wherever it lies inside; the result is the mean over places
    and colours.
    """
    if min(a.shape[-2:]) < 11:
        raise ValueError(f"SSIM of {a.shape[-1]}x{a.shape[-2]} pixels, expected at least 11x11")
    c = a.shape[1]
    line = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    line = (line / line.sum()).expand(c, 1, 1, 11).to(a.device)

    def local_mean(x: Tensor) -> Tensor:
        across = F.conv2d(x, line, groups=c)
        return F.conv2d(across, line.transpose(2, 3), groups=c)

    a, b = a.double(), b.double()
    mean_a = local_mean(a)
    mean_b = local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1 = (0.01 * span) ** 2
    c2 = (0.03 * span) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return (above / below).flatten(1).mean(1)


def histogram(image: Tensor, bins: int = 8) -> Tensor:
    """How many pixels of a uint8 image (3, h, w) fall into each of bins^3 boxes of colours."""
    red, green, blue = image.long().flatten(1) * bins // 256
    box = (red * bins + green) * bins + blue
    return torch.bincount(box, minlength=bins**3)


def style_likeness(a: Tensor, b: Tensor) -> float:
    """The correlation, -1 to 1, of the colour histograms of two uint8 images (3, h, w).

    It says whether a landscape has the style of its reference.
    """
    both = torch.stack([histogram(a), histogram(b)]).double()
    return torch.corrcoef(both)[0, 1].item()
