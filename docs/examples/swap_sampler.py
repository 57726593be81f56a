"""Another sampler under somebody else's network: python docs/examples/swap_sampler.py

The library asks to be called with (x_t, t, condition), and for the schedule of the training.
"""

import torch
from torch import nn

from tinyldm import DDIM, DDPM, DPMSolver, NoiseSchedule, sample

ANGLES = torch.arange(8) * torch.pi / 4
POINTS = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)  # (8, 2), on a circle


def train(steps: int) -> nn.Module:
    """A DDPM as a tutorial might have it: linear betas, eps, (x, t / 1000) in one tensor."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU())
    net.extend([nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 2)])
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
    for _ in range(steps):
        x = POINTS[torch.randint(8, (256,))]
        t = torch.randint(1000, (256,))
        eps = torch.randn(256, 2)
        noisy = alpha_bar[t, None].sqrt() * x + (1 - alpha_bar[t, None]).sqrt() * eps
        loss = (net(torch.cat([noisy, t[:, None] / 1000], 1)) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def draw(net: nn.Module, solver, steps: int, n: int = 500) -> torch.Tensor:
    """n points (n, 2) in so many calls of the network."""

    def denoiser(x_t, t, condition):
        return net(torch.cat([x_t, t[:, None] / 1000], 1))

    how = {"prediction": "eps", "seeds": range(n)}
    return sample(denoiser, (n, 2), NoiseSchedule("linear"), solver, steps, **how)


if __name__ == "__main__":
    net = train(5000)
    for solver, steps in ((DDPM(), 1000), (DDPM(), 20), (DDIM(), 20), (DPMSolver(order=2), 20)):
        distance = torch.cdist(draw(net, solver, steps), POINTS).min(1).values.mean()
        print(f"{solver}, {steps} calls: {distance:.4f} from the circle's points")
