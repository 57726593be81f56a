"""Between noises: against another implementation, and in the limits."""

import numpy as np
import torch
from scipy.spatial import geometric_slerp

from tinyldm.methods.interpolation import slerp

SHARES = torch.tensor([0, 0.1, 0.5, 0.75, 1], dtype=torch.float64)


def noises(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1, n, generator=generator, dtype=torch.float64)


def test_the_way_on_the_sphere_is_scipys():
    a, b = noises(50)
    a, b = a / a.norm(), b / b.norm()
    truth = geometric_slerp(a[0].numpy(), b[0].numpy(), SHARES.numpy())
    np.testing.assert_allclose(slerp(a, b, SHARES).numpy(), truth, atol=1e-12)


def test_the_ends_are_the_noises_themselves():
    a, b = noises(300).float()
    assert torch.equal(slerp(a, b, torch.tensor([0.0])), a)
    torch.testing.assert_close(slerp(a, b, torch.tensor([1.0])), b, rtol=1e-6, atol=1e-6)


def test_what_lies_between_two_noises_is_as_long_as_noise():
    """The straight line loses a quarter of the length halfway, and half of the variance."""
    a, b = noises(10_000)
    between = slerp(a, b, SHARES)
    assert ((between.square().mean(1) - 1).abs() < 4 * (2 / 10_000) ** 0.5).all()
    assert ((a + b) / 2).square().mean() < 0.55


def test_parallel_noises_are_no_special_case():
    (a, b), shares = noises(20).float(), SHARES.float()
    torch.testing.assert_close(slerp(a, a, shares), a.expand(5, -1))
    nearly = a + 1e-5 * b
    expected = a + shares[:, None] * (nearly - a)
    torch.testing.assert_close(slerp(a, nearly, shares), expected, atol=1e-5, rtol=0)


def test_each_sample_has_its_own_share():
    (a, b) = noises(24)
    a, b = a.view(1, 2, 3, 4), b.view(1, 2, 3, 4)
    both = slerp(a, b, SHARES)
    assert both.shape == (5, 2, 3, 4)
    for k, share in enumerate(SHARES):
        torch.testing.assert_close(both[k], slerp(a, b, share[None])[0])
