"""PSNR and SSIM against their known values and an independent convolution."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tinyldm.scores.similarity import psnr, ssim


def pictures(n=2, h=24, w=31, seed=0):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_of_known_errors():
    a = torch.zeros(2, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), -0.02)])
    torch.testing.assert_close(
        psnr(a, b), torch.tensor([20.0, 40.0], dtype=torch.float64), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(psnr(b, a, span=0.2), psnr(a, b) - 20, rtol=1e-6, atol=1e-6)
    assert psnr(a, a).isinf().all()


def test_a_picture_is_like_itself():
    a = pictures()
    torch.testing.assert_close(ssim(a, a), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(ssim(a, pictures(seed=1)), ssim(pictures(seed=1), a))
    torch.testing.assert_close(
        ssim(a * 127.5, pictures(seed=1) * 127.5, span=255.0), ssim(a, pictures(seed=1))
    )


def test_ssim_of_flat_pictures():
    """No variance: (2 a b + c1) / (a^2 + b^2 + c1)."""
    a, b, c1 = 0.5, -0.25, (0.01 * 2) ** 2
    found = ssim(torch.full((1, 3, 12, 12), a), torch.full((1, 3, 12, 12), b))
    assert found.item() == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1))


def test_ssim_is_scipys_convolution():
    """Gaussian means by scipy, cut at 5 pixels, away from the border."""
    a, b = pictures(), (pictures() + 0.3 * pictures(seed=1)).clamp(-1, 1)

    def mean(x):
        return gaussian_filter(x, 1.5, truncate=5 / 1.5, axes=(2, 3))[..., 5:-5, 5:-5]

    x, y = a.double().numpy(), b.double().numpy()
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.02**2, 0.06**2
    expected = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(ssim(a, b), expected.mean((1, 2, 3)), rtol=1e-9)


def test_ssim_needs_its_window():
    with pytest.raises(ValueError, match="SSIM of 31x10 pixels"):
        ssim(pictures(h=10), pictures(h=10))
