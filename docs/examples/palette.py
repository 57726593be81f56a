"""A new kind of condition, a palette, without touching the library (two minutes on one core).

python docs/examples/palette.py
"""

import torch

from tinyldm import (
    Condition,
    DPMSolver,
    Guidance,
    NoiseSchedule,
    UNet,
    UNetConfig,
    sample,
    training_loss,
)
from tinyldm.data.images import grid, to_pil

LEVELS = {"channels": (32, 64), "attention": ("none", "cross"), "middle": "cross", "blocks": 1}
CONFIG = UNetConfig(3, 3, **LEVELS, heads=4, groups=8, token_dim=3)  # a token is a colour, RGB
SCHEDULE = NoiseSchedule("cosine")
NULL = Condition(tokens=torch.zeros(1, 3, 3), mask=torch.zeros(1, 3, dtype=torch.bool))  # masked


def flags(palettes: torch.Tensor) -> torch.Tensor:
    """Three upright stripes in the colours (b, 3, 3), in random order: (b, 3, 12, 12)."""
    order = torch.rand(palettes.shape[:2]).argsort(1)  # (b, 3)
    stripes = palettes.gather(1, order[:, :, None].expand(-1, -1, 3))  # (b, stripe, rgb)
    row = stripes.repeat_interleave(4, 1).transpose(1, 2)  # (b, rgb, 12)
    return row[:, :, None].expand(-1, -1, 12, -1)


def train(steps: int) -> UNet:
    """Learn to paint flags of a palette."""
    torch.manual_seed(0)
    unet = UNet(CONFIG)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for _ in range(steps):
        palettes = torch.rand(32, 3, 3) * 2 - 1
        condition = Condition(palettes)
        loss = training_loss(unet, flags(palettes), condition, SCHEDULE, null=NULL, cfg_drop=0.1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return unet.eval()


if __name__ == "__main__":
    asked = Condition((torch.eye(3)[None] * 1.6 - 0.8).repeat(16, 1, 1))  # red, green and blue
    how = {"steps": 25, "seeds": range(16), "condition": asked, "guidance": Guidance(2.0, NULL)}
    drawn = sample(train(1500), (16, 3, 12, 12), SCHEDULE, DPMSolver(), **how)
    large = drawn.repeat_interleave(4, 2).repeat_interleave(4, 3)
    grid([to_pil(image) for image in large]).save("palette.png")
