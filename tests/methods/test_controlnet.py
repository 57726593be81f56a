"""A ControlNet is its base until it has learned, and adds where diffusers' ControlNet adds."""

from dataclasses import replace

import pytest
import torch
from stand_ins import scrambled
from torch import nn

from tinyldm.compat.native import from_native
from tinyldm.condition import Condition
from tinyldm.errors import InputError
from tinyldm.methods.controlnet import ControlNet
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.training.ema import EMA

SHAPE = UNetConfig(
    in_channels=3,
    out_channels=3,
    channels=(8, 16, 16),
    attention=("none", "cross", "none"),
    blocks=(1, 2, 1),
    heads=2,
    groups=4,
    token_dim=6,
)
X, T = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 700.0])
TOKENS, MAPS = torch.randn(2, 4, 6), torch.rand(2, 5, 8, 8)
CONDITION = Condition(TOKENS, maps=MAPS)


@pytest.fixture
def base():
    return scrambled(UNet(SHAPE)).eval()


def test_at_the_start_it_is_the_base_bit_for_bit(base):
    network = ControlNet.new(base, 5)
    with torch.no_grad():
        expected = base(X, T, Condition(TOKENS))
        assert torch.equal(network(X, T, CONDITION), expected)
        assert torch.equal(EMA(network).network(X, T, CONDITION), expected)


def test_the_first_gradient_reaches_the_zero_convolutions_and_the_next_all_of_the_copy(base):
    frozen = {name: weight.clone() for name, weight in base.state_dict().items()}
    network = ControlNet.new(base, 5)
    zeros = {name for name, _ in network.named_parameters() if name.startswith("zero")}
    assert len(zeros) == 2 * (len(network.zeros) + 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(2):
        network(X, T, CONDITION).square().mean().backward()
        moved = {name for name, p in network.named_parameters() if p.grad.abs().max() > 0}
        if step == 0:
            assert moved == zeros
        optimizer.step()
        optimizer.zero_grad()
    assert moved == {name for name, _ in network.named_parameters()}
    network(X, T, CONDITION).square().mean().backward()
    of_maps = network.encoder.conv_in.weight.grad[:, 3:]
    assert all(grad.abs().max() > 0 for grad in of_maps.unbind(1))  # every channel of the maps
    assert all(torch.equal(frozen[name], w) for name, w in base.state_dict().items())
    assert all(name.startswith(("encoder", "zero")) for name in network.state_dict())


def test_it_is_what_diffusers_makes_of_the_same_weights():
    """Their hint goes through an encoder of its own; here that is one convolution, ours."""
    diffusers = pytest.importorskip("diffusers")
    base = scrambled(UNet(replace(SHAPE, blocks=2))).eval()
    network = scrambled(ControlNet.new(base, 5))
    config = dict(from_native(base.config).config)  # their ControlNet takes one number for all
    config |= {"layers_per_block": 2, "transformer_layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel.from_config(config)
    unet.load_state_dict(base.state_dict())
    control = diffusers.ControlNetModel.from_unet(unet)
    ours = {name: w for name, w in network.encoder.state_dict().items()}
    seen, hint = ours["conv_in.weight"].split([3, 5], dim=1)
    control.load_state_dict({**ours, "conv_in.weight": seen}, strict=False)
    control.controlnet_cond_embedding = nn.Conv2d(5, 8, 3, padding=1, bias=False)
    with torch.no_grad():
        control.controlnet_cond_embedding.weight.copy_(hint)
        for theirs, mine in zip(control.controlnet_down_blocks, network.zeros, strict=True):
            theirs.load_state_dict(mine.state_dict())
        control.controlnet_mid_block.load_state_dict(network.zero_middle.state_dict())
        down, middle = control.eval()(X, T, TOKENS, MAPS, return_dict=False)
        expected = unet.eval()(
            X,
            T,
            TOKENS,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        got = network(X, T, CONDITION)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (got - base(X, T, Condition(TOKENS))).abs().max() > 0.1


def test_a_base_with_maps_keeps_its_own():
    shape = replace(SHAPE, map_channels=2)
    base = scrambled(UNet(shape)).eval()
    network = ControlNet.new(base, 3)
    with torch.no_grad():
        expected = base(X, T, Condition(TOKENS, maps=MAPS[:, :2]))
        assert torch.equal(network(X, T, CONDITION), expected)
        trained = scrambled(network)
        first = trained(X, T, CONDITION)
        for k in range(5):  # all five channels are read
            other = MAPS.clone()
            other[:, k] += 1
            assert not torch.allclose(trained(X, T, Condition(TOKENS, maps=other)), first)


def test_it_says_what_it_needs(base):
    network = ControlNet.new(base, 5)
    with pytest.raises(ValueError, match=r"condition.maps has shape None, expected \(2, 5, 8, 8\)"):
        network(X, T, Condition(TOKENS))
    with pytest.raises(InputError, match="--lora-scale 2: belongs to"):
        network.ready(2.0)


def test_it_can_be_compiled(base):
    network = scrambled(ControlNet.new(base, 5))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, T, CONDITION), network(X, T, CONDITION))
