"""Recorded attention against the layers' own results, and with masks and tokens that decide it."""

import pytest
import torch

from tinyldm.condition import Condition
from tinyldm.diffusion.guidance import Guidance
from tinyldm.methods.attention_maps import attention_weights, over_the_picture, record_attention
from tinyldm.nn.blocks import Attention
from tinyldm.nn.unet import UNet, UNetConfig

LAYERS = {"channels": (16, 32), "attention": ("none", "cross"), "blocks": 1, "heads": 2}


@pytest.fixture
def unet():
    torch.manual_seed(0)
    network = UNet(UNetConfig(in_channels=3, out_channels=3, groups=4, token_dim=12, **LAYERS))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 5, 12, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    x_t = torch.randn(2, 3, 6, 10, generator=generator)
    return x_t, torch.tensor([10.0, 900.0]), Condition(tokens=tokens, mask=mask)


@pytest.mark.parametrize("masked", [False, True])
def test_the_weights_are_those_that_the_layer_uses(masked):
    """Values that are one-hot, and a way out that is the identity, make the layer say its weights:
    torch's own kernel is the truth."""
    torch.manual_seed(0)
    heads, m = 2, 6
    layer = Attention(heads * m, heads, context_width=m)
    x, context = torch.randn(3, 9, heads * m), torch.eye(m).expand(3, m, m)
    with torch.no_grad():
        layer.to_v.weight.copy_(torch.eye(m).repeat(heads, 1))
        layer.to_out[0].weight.copy_(torch.eye(heads * m))
        layer.to_out[0].bias.zero_()
    mask = (torch.arange(m) < torch.tensor([[6], [4], [1]]))[:, None, None] if masked else None
    said = layer(x, context, mask).unflatten(-1, (heads, m)).transpose(1, 2)
    torch.testing.assert_close(attention_weights(layer, x, context, mask), said)


def test_the_result_is_the_same_to_the_bit_and_nothing_stays_behind(unet, given):
    before = unet(*given)
    with record_attention(unet) as maps:
        torch.testing.assert_close(unet(*given), before, rtol=0, atol=0)
    assert len(maps) == 4  # down, middle, and two on the way up
    kept = dict(maps)
    maps.clear()
    unet(*given)
    assert not maps
    assert all(name.endswith("attn2") for name in kept)


def test_shapes_sums_and_masks(unet, given):
    with record_attention(unet) as maps:
        unet(*given)
    for weights in maps.values():
        assert weights.shape == (2, 2, 15, 5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 15))
        assert (weights[1, :, :, 2:] == 0).all()
        assert (weights[0] > 0).all()


def test_equal_tokens_are_looked_at_equally(unet, given):
    x_t, t, condition = given
    tokens = condition.tokens.clone()
    tokens[:, 1] = tokens[:, 0]
    with record_attention(unet) as maps:
        unet(x_t, t, Condition(tokens=tokens, mask=condition.mask))
    for weights in maps.values():
        torch.testing.assert_close(weights[..., 0], weights[..., 1])


def test_the_last_call_counts_and_guidance_has_both_halves(unet, given):
    x_t, t, condition = given
    null = Condition(tokens=torch.zeros(1, 5, 12), mask=torch.ones(1, 5).bool())
    with record_attention(unet) as maps:
        unet(x_t, t, condition)
        alone = dict(maps)
        Guidance(2.0, null)(unet)(x_t, t, condition)
    for name, weights in maps.items():
        assert len(weights) == 4
        torch.testing.assert_close(weights[:2], alone[name])
        torch.testing.assert_close(weights[2:], torch.full_like(weights[2:], 0.2))


def test_hooks_are_removed_after_an_error(unet, given):
    with pytest.raises(ZeroDivisionError), record_attention(unet):
        1 / 0  # noqa: B018
    assert not any(module._forward_hooks for module in unet.modules())


def test_over_the_picture():
    """Two layers, 4x6 and 2x3; each position of the smaller one covers a square of the larger."""
    large, small = torch.rand(1, 2, 24, 3), torch.rand(1, 2, 6, 3)
    heat = over_the_picture({"large": large, "small": small}, (4, 6))
    assert heat.shape == (1, 3, 4, 6)
    for i, j, token in [(0, 0, 0), (3, 5, 2), (1, 4, 1)]:
        one = large[0, :, i * 6 + j, token].mean()
        other = small[0, :, (i // 2) * 3 + j // 2, token].mean()
        assert heat[0, token, i, j].item() == pytest.approx(((one + other) / 2).item())


def test_what_cannot_be_laid_over_the_picture():
    with pytest.raises(ValueError, match="no attention was recorded"):
        over_the_picture({}, (4, 4))
    with pytest.raises(ValueError, match="7 positions are not those of a level of 4x4"):
        over_the_picture({"a": torch.rand(1, 1, 7, 2)}, (4, 4))


def test_weights_are_float32_under_autocast(unet, given):
    with record_attention(unet) as maps, torch.autocast("cpu", torch.bfloat16):
        unet(*given)
    for weights in maps.values():
        sums = weights.sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums, dtype=torch.float32))
