"""The procedural pictures: repeatable, of any size, and of a wide range."""

import numpy as np
import pytest

from tinyldm.commands.toy import script

procedural = script("pictures")
KINDS, picture, pictures = procedural.KINDS, procedural.picture, procedural.pictures


def test_picture_k_of_a_seed_is_always_the_same():
    first, more = pictures(3, 32, seed=5), pictures(6, 32, seed=5)
    assert first.shape == (3, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, more[:3])
    assert not np.array_equal(first, pictures(3, 32, seed=6))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_finite_at_any_size(kind):
    for k in range(40):
        canvas = KINDS[kind](np.random.default_rng(k), 48)
        assert canvas.shape == (48, 48, 3), k
        assert np.isfinite(canvas).all(), k


def test_the_range_is_wide():
    many = pictures(300, 32).astype(float)
    assert many.min() == 0
    assert many.max() == 255
    contrast, colour = many.std((1, 2)).mean(1), many.mean((1, 2))
    assert (contrast < 6).mean() > 0.05
    assert (contrast > 50).mean() > 0.05
    for channel in range(
        3
    ):  # every colour is common: strong in this channel, weak in the two others, and the reverse
        rest = np.delete(colour, channel, 1).mean(1)
        assert (colour[:, channel] - rest > 40).mean() > 0.05
        assert (rest - colour[:, channel] > 40).mean() > 0.05
    fine = np.abs(np.diff(many, axis=2)).mean((1, 2, 3))
    assert (fine > 12).mean() > 0.05
    assert (fine < 1.5).mean() > 0.05


def test_a_size_other_than_the_default():
    assert picture(np.random.default_rng(0), 20).shape == (20, 20, 3)
