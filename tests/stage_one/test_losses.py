"""What a critic adds to stage one: the hinge and equal pulls."""

import pytest
import torch
from torch import nn

from tinyldm.stage_one.losses import Critic, adaptive_weight, critic_loss


def test_the_hinge_wants_a_margin_and_no_more():
    verdicts = {0: 2.0, 1: -1.5, 2: 0.25}

    def critic(images):
        return torch.full((2, 1, 3, 3), verdicts[int(images[0, 0, 0, 0])])

    real, fake, unsure = (torch.full((2, 3, 8, 8), float(k)) for k in range(3))
    assert critic_loss(critic, real, fake) == 0
    assert critic_loss(critic, unsure, fake) == 0.75
    assert critic_loss(critic, real, unsure) == 1.25


def test_the_critic_learns_what_is_real():
    torch.manual_seed(0)
    critic, x = Critic((8, 16)), torch.rand(8, 3, 16, 16) * 2 - 1
    y = (x.roll(1, 2) + x) / 2  # blurred
    y.requires_grad_(True)
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = critic_loss(critic, x, y)
        loss.backward()
        optimiser.step()
    assert loss < 0.5
    assert y.grad is None
    assert critic(x).mean() > critic(y).mean() + 1
    assert [f.shape[1:] for f in critic.features(x)] == [(8, 8, 8), (16, 4, 4)]


def test_the_adaptive_weight_makes_both_losses_pull_equally():
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.randn(8, 4)
    y = layer(x)
    error, verdict = y.square().mean(), 50 * y.mean()
    weight = adaptive_weight(error, verdict, layer.weight)
    pulls = [
        torch.autograd.grad(loss, layer.weight, retain_graph=True)[0].norm()
        for loss in (error, weight * verdict)
    ]
    assert pulls[0].item() == pytest.approx(pulls[1].item(), rel=1e-3)
    assert not weight.requires_grad
