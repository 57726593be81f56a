"""An unconditional pixel model on scikit-learn's digits, 8x8 (two minutes on one core).

python docs/examples/digits.py
"""

import torch
from sklearn.datasets import load_digits

from tinyldm import EMA, DPMSolver, NoiseSchedule, UNet, UNetConfig, sample, training_loss
from tinyldm.data.images import grid, to_pil

LEVELS = {"channels": (48, 96), "attention": ("none", "self"), "middle": "self", "blocks": 1}
CONFIG = UNetConfig(1, 1, **LEVELS, heads=4, groups=8, scale_shift=True)
SCHEDULE = NoiseSchedule("cosine")


def train(images: torch.Tensor, steps: int) -> UNet:
    """Learn images (n, 1, h, w) in [-1, 1]. Returns the network with its averaged weights."""
    torch.manual_seed(0)
    unet = UNet(CONFIG)
    ema, optimizer = EMA(unet, 0.995), torch.optim.AdamW(unet.parameters(), lr=1e-3)
    for step in range(steps):
        x0 = images[torch.randint(len(images), (64,))]
        loss = training_loss(unet, x0, None, SCHEDULE).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(unet)
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f}", flush=True)
    return ema.network


def draw(unet: UNet, n: int) -> torch.Tensor:
    """n new images; pixels have bounds, so the estimates of x0 are clipped to them."""
    return sample(unet, (n, 1, 8, 8), SCHEDULE, DPMSolver(), steps=25, seeds=range(n), clip=1.0)


if __name__ == "__main__":
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1  # 0..16 -> [-1, 1]
    drawn = draw(train(digits, 1500), 64).expand(-1, 3, -1, -1)
    large = drawn.repeat_interleave(6, 2).repeat_interleave(6, 3)
    grid([to_pil(image) for image in large]).save("digits.png")
