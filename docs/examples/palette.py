"""A new kind of condition, a palette, on the library as it is: python docs/examples/palette.py"""

import torch

from tinyldm import Condition, Guidance, NoiseSchedule, UNet, UNetConfig, sample, training_loss
from tinyldm.data.images import grid, to_pil

SIZE = {"channels": (32, 64), "blocks": 1, "heads": 4, "groups": 8}
CONFIG = UNetConfig(  # a token is a colour, which is three numbers
    in_channels=3, out_channels=3, attention=("none", "cross"), middle="cross", token_dim=3, **SIZE
)
SCHEDULE = NoiseSchedule("cosine")
NULL = Condition(torch.zeros(1, 3, 3), mask=torch.zeros(1, 3, dtype=torch.bool))  # no colour


def flags(palettes: torch.Tensor) -> torch.Tensor:
    """Three stripes in the colours (b, 3, 3), in random order, upright: (b, 3, 12, 12)."""
    order = torch.rand(palettes.shape[:2]).argsort(1)  # (b, 3)
    stripes = palettes.gather(1, order[:, :, None].expand(-1, -1, 3))  # (b, 3 stripes, 3 colours)
    row = stripes.repeat_interleave(4, 1).transpose(1, 2)  # (b, 3 colours, 12)
    return row[:, :, None].expand(-1, -1, 12, -1)


def train(steps: int) -> UNet:
    """Learn to paint flags of a palette."""
    torch.manual_seed(0)
    unet = UNet(CONFIG)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for _ in range(steps):
        palettes = torch.rand(32, 3, 3) * 2 - 1
        x0, asked = flags(palettes), Condition(palettes)
        loss = training_loss(unet, x0, asked, SCHEDULE, null=NULL, cfg_drop=0.1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return unet.eval()


def draw(unet: UNet, palettes: torch.Tensor) -> torch.Tensor:
    """A flag for each palette (b, 3, 3), guided towards its colours."""
    b = len(palettes)
    how = {"seeds": range(b), "condition": Condition(palettes), "guidance": Guidance(2.0, NULL)}
    return sample(unet, (b, 3, 12, 12), SCHEDULE, steps=25, **how)


if __name__ == "__main__":
    palettes = (torch.eye(3)[None] * 1.6 - 0.8).repeat(16, 1, 1)  # red, green and blue
    drawn = draw(train(1500), palettes)
    large = drawn.repeat_interleave(4, 2).repeat_interleave(4, 3)
    grid([to_pil(image) for image in large]).save("palette.png")
