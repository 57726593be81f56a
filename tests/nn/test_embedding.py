import math

import pytest
import torch

from tinyldm import UNet, UNetConfig
from tinyldm.nn.blocks import Sinusoidal

TINY = dict(channels=(32, 64), attention="none", middle="none", blocks=1, groups=8)


def test_sinusoidal_against_math():
    t = [0.0, 1.0, 936.0, 998.5]
    flipped = Sinusoidal(8)(torch.tensor(t))
    for row, value in enumerate(t):
        for k in range(4):
            stops_before = 1e4 ** (-k / 4)
            assert flipped[row, k] == pytest.approx(math.cos(value * stops_before), abs=2e-4)
            assert flipped[row, 4 + k] == pytest.approx(math.sin(value * stops_before), abs=2e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_pitfall_08_bfloat16_tells_936_from_937(autocast):
    torch.manual_seed(0)
    network = UNet(UNetConfig(**TINY))
    network = network if autocast else network.bfloat16()
    for name, p in network.named_parameters():
        if "conv2" in name or "conv_out" in name:  # zero at the start
            torch.nn.init.normal_(p, std=0.1)
    seen = []
    network.time_embedding.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].float())
    )
    x = torch.randn(1, 4, 8, 8).expand(2, -1, -1, -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = network(x, torch.tensor([936.0, 937.0]))
    assert (seen[0][0] - seen[0][1]).abs().max() > 0.3  # the fastest wave turns by one radian
    # and they are the waves of these very times, not of neighbours that bfloat16 would have rounded
    # them to
    angle = torch.tensor([936.0, 937.0])
    torch.testing.assert_close(seen[0][:, 0], angle.cos(), atol=1e-2, rtol=0)
    assert not torch.equal(out[0], out[1])
