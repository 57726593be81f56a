"""Solutions of chapter 4, The network."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def features(t: Tensor, width: int) -> Tensor:
    """Exercise 1: cosines, then sines, of t (b,) at width / 2 frequencies: (b, width)."""
    n = width // 2
    omega = 10000.0 ** (-torch.arange(n, dtype=t.dtype) / n)
    angle = t[:, None] * omega
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def turn(delta: float, width: int) -> Tensor:
    """Exercise 1: R (width, width) with features(t + delta) = R features(t) for every t.

    cos(a + b) = cos(b) cos(a) - sin(b) sin(a) and sin(a + b) = sin(b) cos(a) + cos(b) sin(a), with
    b = omega delta: the cosine and the sine of each frequency are turned in their plane.
    """
    n = width // 2
    b = delta * 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)
    cos, sin = torch.diag(b.cos()), torch.diag(b.sin())
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)], dim=0)


def view(layers: Sequence[tuple[int, int]]) -> int:
    """Exercise 2: the side of what one output of a stack of (kernel, stride) depends on.

    Each layer adds kernel - 1 positions, which lie as far apart in the input as the product of the
    strides before it.
    """
    side, apart = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * apart
        apart *= stride
    return side


# In the drawing, conv_in and a ResBlock have three 3x3 convolutions and see 7x7 of 16x16 places.
# With the Downsample it is 9x9; the ResBlock at 8x8 adds two convolutions at twice the distance:
# 17x17. A place in the middle now sees all of the picture. One in a corner needs a view of 31x31,
# which it has in the first ResBlock at 4x4: 17 + 4 + 16 = 37. (A group norm sees all places from
# the start, but only their mean and their spread.)
DOWN = [(3, 1)] * 3 + [(3, 2)] + [(3, 1)] * 2 + [(3, 2)] + [(3, 1)] * 2


def best_linear(x_t: Tensor, spectrum: Tensor, alpha: float, sigma: float) -> Tensor:
    """Exercise 3: E[x0 | x_t] of a Gaussian signal on a ring: Wiener's filter.

    x_t:      (..., n)
    spectrum: (n,), the variances of the components of the unitary Fourier transform of x0
    """
    gain = alpha * spectrum / (alpha**2 * spectrum + sigma**2)
    return torch.fft.ifft(gain * torch.fft.fft(x_t)).real


if __name__ == "__main__":
    print(
        "alike at a distance of 10:", (features(torch.tensor([0.0, 10.0]), 96)).prod(0).sum() / 48
    )
    print("view after the drawing's second ResBlock:", view(DOWN[:6]), "and third:", view(DOWN))
    assert math.isclose(view(DOWN[:3]), 7)
