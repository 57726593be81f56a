import math

import pytest
import torch
from torch import nn

from tinyldm.training.ema import EMA


def module(value, dtype=torch.float32):
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(value)
    return net.to(dtype)


def test_pitfall_09_a_bfloat16_weight_from_1_to_2_reads_its_closed_form():
    """2 - 0.9999^10000 = 1.632; a bfloat16 shadow would not move at all."""
    net = module(1.0, torch.bfloat16)
    ema = EMA(net, 0.9999, warmup=False)
    with torch.no_grad():
        net.weight.fill_(2.0)
    for _ in range(10_000):
        ema.update(net)
    assert ema.network.weight.item() == pytest.approx(
        2 - math.exp(10_000 * math.log(0.9999)), abs=1e-3
    )
    assert ema.network.weight.dtype == torch.float32
    assert net.weight.dtype == torch.bfloat16


def test_pitfall_09_warm_up_forgets_the_random_start():
    """With weights k at update k the average trails closely; a plain one has hardly left 0."""
    net = module(0.0)
    warm, plain = EMA(net, 0.9999), EMA(net, 0.9999, warmup=False)
    for k in range(1, 101):
        with torch.no_grad():
            net.weight.fill_(float(k))
        warm.update(net)
        plain.update(net)
    assert warm.network.weight.item() > 80
    assert plain.network.weight.item() < 1


def test_pitfall_09_survives_save_and_load():
    net = module(0.0)
    first = EMA(net, 0.99)
    values = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    for k, value in enumerate(values):
        with torch.no_grad():
            net.weight.fill_(value)
        if k == 10:
            second = EMA(module(5.0), 0.99)
            second.load_state_dict(first.state_dict())
            first = second
        first.update(net)
    whole = EMA(module(0.0), 0.99)
    for value in values:
        whole.update(module(value))
    assert torch.equal(whole.network.weight, first.network.weight)


def test_pitfall_09_average_of_warm_up_equals_the_closed_product():
    """From 1 with the target 0, what is left is the product of all d_k.

    d_k = min(decay, (1 + k) / (10 + k))
    """
    for decay, left in (
        (
            0.9999,
            [math.factorial(k) * math.factorial(9) / math.factorial(9 + k) for k in range(1, 8)],
        ),
        (0.25, [1 / 10, 1 / 55, 1 / 220, 1 / 880, 1 / 3520]),
    ):  # 1/10, 2/11, then a quarter each
        ema = EMA(module(1.0), decay)
        for expected in left:
            ema.update(module(0.0))
            assert ema.network.weight.item() == pytest.approx(expected, rel=1e-5)


def test_buffers_are_copied_and_training_is_untouched():
    net = nn.BatchNorm1d(2)
    ema = EMA(net, 0.9)
    net.running_mean.fill_(3.0)
    ema.update(net)
    assert torch.equal(ema.network.running_mean, net.running_mean)
    assert net.training
    assert net.weight.requires_grad
    assert not ema.network.training
    assert not ema.network.weight.requires_grad


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(module(0.0), decay)
