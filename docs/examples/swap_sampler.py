"""Another sampler under a network trained by somebody else: python docs/examples/swap_sampler.py (a minute on one core)

All that the library asks is to be called with (x_t, t, condition), and the schedule that the network was trained on.
"""

import math

import torch
from torch import nn

from tinyldm import DDIM, DDPM, DPMSolver, NoiseSchedule, sample

POINTS = torch.tensor(
    [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]
)  # on a circle


def train(steps: int) -> nn.Module:
    """A DDPM of eight points as a tutorial might have it: linear betas, eps, (x, t / 1000) in one tensor."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 256),
        nn.SiLU(),
        nn.Linear(256, 256),
        nn.SiLU(),
        nn.Linear(256, 256),
        nn.SiLU(),
        nn.Linear(256, 2),
    )
    optimizer, alphas = (
        torch.optim.Adam(net.parameters(), 2e-3),
        (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0),
    )
    for _ in range(steps):
        x, t, eps = (
            POINTS[torch.randint(8, (256,))],
            torch.randint(1000, (256,)),
            torch.randn(256, 2),
        )
        noisy = alphas[t, None].sqrt() * x + (1 - alphas[t, None]).sqrt() * eps
        loss = (net(torch.cat([noisy, t[:, None] / 1000], 1)) - eps).square().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return net


def draw(net: nn.Module, solver, steps: int, n: int = 500) -> torch.Tensor:
    """n points (n, 2) in so many calls of the network."""
    denoiser = lambda x_t, t, condition: net(torch.cat([x_t, t[:, None] / 1000], 1))
    return sample(
        denoiser, (n, 2), NoiseSchedule("linear"), solver, steps, prediction="eps", seeds=range(n)
    )


if __name__ == "__main__":
    net = train(5000)
    for solver, steps in ((DDPM(), 1000), (DDPM(), 20), (DDIM(), 20), (DPMSolver(order=2), 20)):
        print(
            solver,
            steps,
            "calls, error",
            torch.cdist(draw(net, solver, steps), POINTS).min(1).values.mean(),
        )
