"""Another sampler for a network that somebody else has trained (a minute on one core).

    python docs/examples/swap_sampler.py

The library only asks that the network can be called with (x_t, t, condition), and for the schedule
that it was trained with.
"""

import math

import torch
from torch import nn

from tinyldm import DDIM, DDPM, DPMSolver, NoiseSchedule, sample

ANGLES = torch.arange(8) * math.pi / 4
POINTS = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)  # (8, 2), on a circle


def train(steps: int) -> nn.Module:
    """A DDPM of eight points as in a tutorial: linear betas, eps, (x, t / 1000) in one tensor."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU()]
    layers += [nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 2)]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    alphas = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
    for _ in range(steps):
        x = POINTS[torch.randint(8, (256,))]
        t = torch.randint(1000, (256,))
        eps = torch.randn(256, 2)
        noisy = alphas[t, None].sqrt() * x + (1 - alphas[t, None]).sqrt() * eps
        loss = (net(torch.cat([noisy, t[:, None] / 1000], 1)) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def draw(net: nn.Module, solver, steps: int, n: int = 500) -> torch.Tensor:
    """n points (n, 2), with `steps` calls of the network."""

    def denoiser(x_t, t, condition):
        return net(torch.cat([x_t, t[:, None] / 1000], 1))

    schedule, seeds = NoiseSchedule("linear"), range(n)
    return sample(denoiser, (n, 2), schedule, solver, steps=steps, prediction="eps", seeds=seeds)


if __name__ == "__main__":
    net = train(5000)
    for solver, steps in ((DDPM(), 1000), (DDPM(), 20), (DDIM(), 20), (DPMSolver(order=2), 20)):
        error = torch.cdist(draw(net, solver, steps), POINTS).min(1).values.mean()
        print(f"{solver}: {steps} calls, error {error:.3f}")
