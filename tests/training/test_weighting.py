"""The weights that each level of noise has in the loss."""

import math
from pathlib import Path

import pytest
import torch

from tinyldm.diffusion.loss import draw_noise, prediction_error
from tinyldm.diffusion.prediction import eps_of, target
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.processes import ALONE
from tinyldm.training.weighting import BINS, DECAY, KNOWN, EvenWeights

CPU = torch.device("cpu")


def test_a_weight_is_the_mean_of_all_errors_over_that_of_its_level():
    """Three errors, in the bins 0, 0 and 1, and later one in bin 1; the sums by hand."""
    weights = EvenWeights(1000, CPU)
    first = weights(torch.tensor([0, 49, 50]), torch.tensor([1.0, 3.0, 8.0]))
    assert first.tolist() == pytest.approx([1, 1, 1])  # nothing is known yet
    weights.settle(ALONE)
    weights(torch.tensor([99]), torch.tensor([2.0]))
    weights.settle(ALONE)
    d, few = DECAY, 1e-6 * DECAY**2  # what each bin had before its first
    samples, errors = [2 * d + few, d + 1 + few], [4 * d + few, 8 * d + 2 + few]
    overall = (sum(errors) + few * (BINS - 2)) / (sum(samples) + few * (BINS - 2))
    expected = [overall * samples[k] / errors[k] for k in (0, 1)] + [overall]
    t, error = torch.tensor([20, 70, 500]), torch.tensor([9.0, 9.0, 9.0])
    assert weights(t, error).tolist() == pytest.approx(expected, rel=1e-5)


def test_each_level_ends_with_the_same_share_of_the_loss():
    """Errors of 1 to 100, by level, with chance in them: their weighted means are all alike."""
    weights, generator = EvenWeights(1000, CPU), torch.Generator().manual_seed(0)
    shares = torch.zeros(BINS)
    for step in range(400):
        t = torch.arange(25, 1000, 50)
        chance = 0.5 + torch.rand(BINS, generator=generator)
        error = torch.logspace(0, 2, BINS) * chance
        weighted = weights(t, error) * error
        weights.settle(ALONE)
        if step >= 200:
            shares += weighted / 200
    assert (shares / shares.mean() - 1).abs().max() < 0.1
    assert shares.mean().item() == pytest.approx(torch.logspace(0, 2, BINS).mean().item(), rel=0.1)


@pytest.mark.parametrize("prediction", ["eps", "x0", "flow"])
def test_what_is_predicted_does_not_matter(prediction):
    """With a bin for each t, errors of the same estimates of x0 have, weighted, the same ratios
    whatever they are errors of."""
    schedule, generator = NoiseSchedule("cosine", timesteps=BINS), torch.Generator().manual_seed(0)
    ours, theirs = EvenWeights(BINS, CPU), EvenWeights(BINS, CPU)
    t = torch.arange(1, BINS - 1)  # at the last, alpha is nearly zero, and so is an error of eps
    for _ in range(3):
        x0 = torch.randn(len(t), 2, 4, 4, generator=generator)
        noised = draw_noise(x0, schedule, generator, t=t)
        guess = x0 + torch.randn(x0.shape, generator=generator)
        found = []
        for kind, weights in ((prediction, ours), ("v", theirs)):
            eps = eps_of(guess, noised.x_t, noised.level)
            predicted = target(guess, eps, noised.level, kind)
            error = prediction_error(predicted, noised, kind, schedule)
            found.append(weights(t, error) * error)
            weights.settle(ALONE)
        ratio = found[0] / found[1]
    assert ratio.mean() > 0.1
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


def test_sums_and_weights_are_of_float32_where_the_network_runs_in_bfloat16():
    found = []
    for enabled in (False, True):
        weights = EvenWeights(1000, CPU)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            weights(torch.tensor([10, 20, 500]), torch.tensor([1.001, 3.0003, 0.7007]))
            weights.settle(ALONE)
            found.append(weights(torch.tensor([10, 500]), torch.ones(2)))
    assert found[1].dtype == torch.float32
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_what_cannot_be_sums_of_errors_is_refused_by_its_file(value):
    weights = EvenWeights(1000, CPU)
    kept = weights.known.clone()
    kept[1, 3] = value
    with pytest.raises(InputError, match=r"training.safetensors: loss_weights.known: expected"):
        weights.restore({KNOWN: kept}, Path("training.safetensors"))


def test_a_step_that_is_left_out_leaves_nothing():
    weights = EvenWeights(1000, CPU)
    before = weights.known.clone()
    weights(torch.tensor([500]), torch.tensor([math.inf]))
    weights.forget()
    weights.settle(ALONE)
    torch.testing.assert_close(weights.known, before * DECAY)


def test_a_level_that_is_not_drawn_for_long_keeps_its_weight():
    """Without an end to the decay its sums were zero after some 5,000 steps, and its weight NaN."""
    weights = EvenWeights(1000, CPU)
    weights(torch.tensor([10, 500]), torch.tensor([2.0, 4.0]))
    weights.settle(ALONE)
    for _ in range(8000):
        weights(torch.tensor([500]), torch.tensor([4.0]))
        weights.settle(ALONE)
    found = weights(torch.tensor([10, 500, 990]), torch.ones(3))
    assert found.tolist() == pytest.approx([2, 1, 4], rel=1e-3)  # 4 / 2, 4 / 4 and, unseen, 4 / 1
    assert (weights.known > 0).all()
