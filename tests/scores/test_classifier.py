"""The one training of small classifiers: it learns, repeats itself, and follows one cycle."""

import pytest
import torch
from torch import nn

from tinyldm.scores import classifier


def brightness(generator):
    """Images that are brighter than 0 on average, or darker."""
    wanted = torch.rand(16, generator=generator) < 0.5
    level = torch.where(wanted, 0.3, -0.3)[:, None, None, None]
    return level + 0.2 * torch.randn(16, 3, 8, 8, generator=generator), wanted


def loss(logits, wanted):
    return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], wanted.float())


def trained(seed=0, steps=40):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(192, 1))
    return classifier.train(net, brightness, loss, steps=steps, lr=0.01, seed=seed)


def test_it_learns_and_ends_in_eval_mode():
    net = trained()
    assert not net.training
    images, wanted = brightness(torch.Generator().manual_seed(1))
    assert torch.equal(net(images)[:, 0] > 0, wanted)


def test_a_seed_decides_the_batches():
    first, again, other = trained(0, 3)[2].weight, trained(0, 3)[2].weight, trained(1, 3)[2].weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_rate_rises_for_the_share_of_warmup_and_falls_again(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    classifier.train(net, brightness, loss, steps=20, lr=0.01, warmup=0.25)
    assert len(rates) == 20
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 4  # after a quarter of the steps
    assert rates[-1] < rates[0] < 0.01
