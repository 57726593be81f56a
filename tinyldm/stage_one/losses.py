"""What stage one may minimise besides the error of the pixels: the verdict of a critic."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Critic(nn.Module):
    """A patch critic (1611.07004, sec. 3.2.2), trained beside the autoencoder.

    images (b, 3, h, w) -> (b, 1, h', w'): a verdict on each patch, high where it looks real
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        pairs = itertools.pairwise((3, *widths))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each layer sees: (b, c, h / 2, w / 2), (b, c', h / 4, w / 4), ..."""
        norms = [nn.Identity(), *self.norms]  # the first layer has none
        seen, x = [], images
        for layer, norm in zip(self.layers, norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), 0.2)
            seen.append(x)
        return seen

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)[-1])


def critic_loss(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """The critic's hinge loss (1705.02894): 0 where it tells real from fake by a margin of 1."""
    return F.relu(1 - critic(real)).mean() + F.relu(1 + critic(fake.detach())).mean()


def adaptive_weight(error: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The weight at which two losses pull equally on the decoder's last layer, at most 10^4.

    last: the weights of that layer (2012.09841, eq. 7)
    """
    (of_error,) = torch.autograd.grad(error, last, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    weight = of_error.norm() / (of_adversarial.norm() + 1e-4)
    return weight.clamp(0, 1e4).detach()
