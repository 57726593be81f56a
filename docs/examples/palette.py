"""A new kind of condition without touching the library, a palette: python docs/examples/palette.py (two minutes)"""

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

CONFIG = UNetConfig(
    in_channels=3,
    out_channels=3,
    channels=(32, 64),
    attention=("none", "cross"),
    middle="cross",
    blocks=1,
    heads=4,
    groups=8,
    token_dim=3,
)  # a token is a colour: red, green, blue
SCHEDULE = NoiseSchedule("cosine")
NULL = Condition(
    tokens=torch.zeros(1, 3, 3), mask=torch.zeros(1, 3, dtype=torch.bool)
)  # no colour is asked for


def flags(palettes: torch.Tensor) -> torch.Tensor:
    """Three stripes in the colours (b, 3, 3), in random order, upright: (b, 3, 12, 12)."""
    order = torch.rand(palettes.shape[:2]).argsort(1)[:, :, None].expand(-1, -1, 3)
    return (
        palettes.gather(1, order)
        .repeat_interleave(4, 1)
        .transpose(1, 2)[:, :, None]
        .expand(-1, -1, 12, -1)
    )


def train(steps: int) -> UNet:
    """Learn to paint flags of a palette."""
    torch.manual_seed(0)
    unet = UNet(CONFIG)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for _ in range(steps):
        palettes = torch.rand(32, 3, 3) * 2 - 1
        loss = training_loss(
            unet, flags(palettes), Condition(palettes), SCHEDULE, null=NULL, cfg_drop=0.1
        ).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return unet.eval()


if __name__ == "__main__":
    asked = Condition((torch.eye(3)[None] * 1.6 - 0.8).repeat(16, 1, 1))  # red, green and blue
    drawn = sample(
        train(1500),
        (16, 3, 12, 12),
        SCHEDULE,
        DPMSolver(),
        steps=25,
        seeds=range(16),
        condition=asked,
        guidance=Guidance(2.0, NULL),
    )
    grid([to_pil(x.repeat_interleave(4, 1).repeat_interleave(4, 2)) for x in drawn]).save(
        "palette.png"
    )
