import itertools
import math

import pytest

from tinyldm.processes import ALONE
from tinyldm.training.learning_rate import Plateau, highest_rate, learning_rate
from tinyldm.training.run import RunFolder
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


def test_linear_falls_on_a_straight_line_to_zero_just_after_the_last_step():
    rates = curve(lr=2.0, warmup=4, lr_schedule="linear", max_steps=12)
    assert rates[:4] == pytest.approx([0.4, 0.8, 1.2, 1.6])
    assert rates[4:] == pytest.approx([2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25])


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


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step", "plateau"])
def test_pitfall_11_the_rate_does_not_know_accumulation(schedule):
    """It is a function of the optimiser step: accumulation and processes don't enter."""
    one, four = (
        curve(lr_schedule=schedule, max_steps=40, warmup=5, lr_every=10, accumulate=a)
        for a in (1, 4)
    )
    assert one == four
    assert len(set(one)) > 5


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (5, 100), (40, 3), (40, 39), (40, 40)])
def test_the_highest_rate_is_that_of_all_steps(schedule, steps, warmup):
    how = dict(lr=1e-3, warmup=warmup, lr_schedule=schedule, max_steps=steps, lr_every=7)
    assert highest_rate(TrainSettings(**how)) == max(curve(**how))


@pytest.mark.parametrize(
    ("options", "warmup", "told"),
    [
        ({"max_steps": 50}, 5, None),
        ({"max_steps": 5}, 0, None),
        ({"max_steps": 5000}, 30, None),
        ({"epochs": 10}, 4, None),  # of 128 images: 40 steps
        ({"max_steps": 50, "warmup": 30}, 30, None),  # what is given is kept
        ({"max_steps": 50, "warmup": 900}, 900, "1.1e-04, less than a tenth of --lr 0.002"),
    ],
)
def test_warm_up_is_at_most_a_tenth_of_a_short_run(tmp_path, capsys, options, warmup, told):
    run, given = RunFolder.asked({"out": tmp_path / "run", **options})
    settings = run.of_length(TrainSettings.from_dict(given), 128, ALONE)
    assert settings.warmup == warmup
    out = capsys.readouterr().out
    assert (told in out) if told else not out


def test_a_resumed_run_keeps_its_warm_up(tmp_path, capsys):
    """A run of an earlier version goes on as it began, and hears that its rate is low."""
    old = TrainSettings(max_steps=8, warmup=100)
    run = RunFolder(tmp_path, resume=True, saved={"step": 4, "settings": old.to_dict()})
    assert run.of_length(old, 128, ALONE) == old
    assert "--warmup 100 in 8 steps" in capsys.readouterr().out
