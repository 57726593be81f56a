import itertools
import math

import pytest

from tinyldm.training.learning_rate import Plateau, learning_rate
from tinyldm.training.settings import TrainSettings


def curve(**settings):
    s = TrainSettings(**settings)
    return [learning_rate(k, s) for k in range(s.max_steps)]


def test_warm_up_rises_linearly_from_the_first_step():
    rates = curve(lr=1.0, warmup=4, lr_schedule="constant", max_steps=8)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_cosine_is_half_in_the_middle_and_ends_near_zero():
    rates = curve(lr=2.0, warmup=0, lr_schedule="cosine", max_steps=100)
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(1.0)
    assert 0 < rates[-1] < 1e-3
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_step_halves_at_each_period():
    rates = curve(lr=1.0, warmup=0, lr_schedule="step", lr_every=3, max_steps=9)
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_plateau_cuts_only_when_the_loss_stands_still():
    plateau = Plateau()
    for loss in [4, 4, 3, 3, 3, 3, 2.99, 2.99, 1, 1]:  # windows 4, 3, 3, 2.99, 1
        plateau.observe(loss, window=2)
    assert plateau.cuts == 2
    s = TrainSettings(lr=1.0, warmup=0, lr_schedule="plateau", lr_decay=0.1)
    assert math.isclose(learning_rate(5, s, plateau.cuts), 0.01)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_pitfall_11_the_rate_does_not_know_accumulation(schedule):
    """It is a function of the optimiser step: accumulation and processes don't enter."""
    one, four = (
        curve(lr_schedule=schedule, max_steps=40, warmup=5, lr_every=10, accumulate=a)
        for a in (1, 4)
    )
    assert one == four
    assert len(set(one)) > 5
