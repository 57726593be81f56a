"""ControlNet: a frozen UNet that follows maps which it has never seen (2302.05543, section 3).

    y = F(x; W) + Z(F(x + Z(c; z1); W'); z2)        (eq. 2)

W' is a copy of the frozen W that is trained, c the maps, and Z a convolution of zeros. What is
copied is the way down and the middle. Each of their outputs, through a 1 x 1 convolution of its
own, is added to the skip of the frozen network that it is a copy of. At the start nothing is added,
and the network is the one it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.condition import Condition
from tinyldm.errors import InputError
from tinyldm.methods.adapter import Adapter
from tinyldm.nn.blocks import zero
from tinyldm.nn.unet import UNet, UNetConfig


class EncoderCopy(UNet):
    """The way down and the middle of a UNet."""

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        del self.up_blocks, self.conv_norm_out, self.conv_out


class ControlNet(Adapter):
    """Learns to make a frozen UNet follow map_channels further channels of Condition.maps.

    They come behind the maps that the base has had, if any; the base is shown its own alone. The
    first convolution of the copy has them as further inputs, whose weights start at zero: together
    they are conv(x) + Z(c), the x + Z(c) of the paper behind its first layer. new() makes one that
    starts as its base; the constructor leaves the copy random, for weights to be loaded.
    """

    base: UNet

    def __init__(self, base: UNet, map_channels: int):
        super().__init__(base)
        config = base.config
        self.map_channels = map_channels
        self.encoder = EncoderCopy(replace(config, map_channels=config.map_channels + map_channels))
        widths = [config.channels[0]]
        for i, level in enumerate(config.levels):
            smaller = i < len(config.levels) - 1  # a level but the last ends in half the size
            widths += [level.width] * (level.blocks + smaller)
        self.zeros = nn.ModuleList(zero(nn.Conv2d(width, width, 1)) for width in widths)
        self.zero_middle = zero(nn.Conv2d(widths[-1], widths[-1], 1))

    @classmethod
    def new(cls, base: UNet, map_channels: int) -> ControlNet:
        """One that predicts what its base does, until it is trained."""
        network = cls(base, map_channels)
        copied = {}
        for name in network.encoder.state_dict():
            copied[name] = base.state_dict()[name]
        seen = copied["conv_in.weight"]  # (c, in, 3, 3)
        blind = seen.new_zeros(len(seen), map_channels, *seen.shape[2:])
        copied["conv_in.weight"] = torch.cat([seen, blind], dim=1)
        network.encoder.load_state_dict(copied)
        return network

    def spec(self) -> dict[str, Any]:
        """How many channels of maps."""
        return {"controlnet": {"map_channels": self.map_channels}}

    def forward(self, x_t: Tensor, t: Tensor | float, condition: Condition) -> Tensor:
        """What the controlled network predicts, (b, c, h, w) like x_t."""
        copied, outputs, _ = self.encoder.encode(x_t, t, condition)
        known = self.base.config.map_channels
        maps = None if condition.maps is None or not known else condition.maps[:, :known]
        h, skips, told = self.base.encode(x_t, t, replace(condition, maps=maps))
        h = h + self.zero_middle(copied)
        skips = [s + z(c) for s, z, c in zip(skips, self.zeros, outputs, strict=True)]
        return self.base.decode(h, skips, told).to(x_t.dtype)

    def ready(self, scale: float = 1.0) -> nn.Module:
        """The network as it is; it has no scale."""
        if scale != 1:
            raise InputError(
                f"--lora-scale {scale:g}: belongs to train.py --lora, not to a ControlNet"
            )
        return self
