import pytest
import torch
import torch.nn.functional as F

from tinyldm.nn.blocks import Downsample, GroupNorm, ResBlock, Upsample


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("width_in", [16, 32])
def test_starts_as_its_shortcut(scale_shift, width_in):
    torch.manual_seed(0)
    block = ResBlock(width_in, 32, 8, 4, 1e-5, 0.0, scale_shift)
    x = torch.randn(2, width_in, 5, 4)
    expected = x if width_in == 32 else block.conv_shortcut(x)
    assert torch.equal(block(x, torch.randn(2, 8)), expected)


def test_scale_shift_modulates_each_channel():
    """With the second convolution the identity, the branch is silu(norm * (1 + scale) + shift)."""
    torch.manual_seed(0)
    block = ResBlock(8, 8, 2, 4, 1e-5, 0.0, scale_shift=True)
    torch.nn.init.dirac_(block.conv2.weight)
    with torch.no_grad():
        block.time_emb_proj.weight.zero_()
        block.time_emb_proj.bias.copy_(
            torch.cat([torch.full((8,), -1.0), torch.arange(8.0)])
        )  # scale away, shift k
    x = torch.randn(2, 8, 3, 3)
    branch = block(x, torch.randn(2, 2)) - x
    expected = F.silu(torch.arange(8.0)).reshape(1, 8, 1, 1).expand_as(x)
    torch.testing.assert_close(branch, expected, rtol=1e-5, atol=1e-5)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    block = ResBlock(8, 8, 2, 4, 1e-5, 0.5, False)
    torch.nn.init.normal_(block.conv2.weight)
    x, emb = torch.randn(1, 8, 4, 4), torch.randn(1, 2)
    assert not torch.equal(block(x, emb), block(x, emb))
    block.eval()
    assert torch.equal(block(x, emb), block(x, emb))


def test_without_time_there_is_no_weight_for_it():
    torch.manual_seed(0)
    block = ResBlock(8, 16, None, 4, 1e-6)
    assert not [name for name in block.state_dict() if name.startswith("time")]
    torch.nn.init.normal_(block.conv2.weight)
    x = torch.randn(2, 8, 5, 4)
    h = F.silu(block.norm2(block.conv1(F.silu(block.norm1(x)))))
    torch.testing.assert_close(block(x), block.conv_shortcut(x) + block.conv2(h))


def test_up_is_twice_the_size_where_none_is_given():
    up, x = Upsample(8), torch.randn(2, 8, 3, 5)
    assert torch.equal(up(x), up(x, (6, 10)))


@pytest.mark.parametrize(("h", "w"), [(8, 8), (7, 4), (1, 5)])
def test_down_and_up_return_to_the_size(h, w):
    x = torch.randn(2, 8, h, w)
    down = Downsample(8)(x)
    assert down.shape == (2, 8, -(-h // 2), -(-w // 2))
    assert Upsample(8)(down, (h, w)).shape == x.shape


def test_group_norm_keeps_bfloat16_under_autocast():
    x = 100 + torch.randn(2, 8, 6, 6)  # a mean that bfloat16 sums would spoil
    norm = GroupNorm(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16
    groups = y.float().reshape(2, 2, -1)
    assert groups.mean(-1).abs().max() < 0.02
    assert (groups.std(-1) - 1).abs().max() < 0.02
