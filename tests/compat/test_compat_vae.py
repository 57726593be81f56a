"""The autoencoder against diffusers: calls, folders both ways, random settings."""

import random

import pytest
import torch
from scrambling import scrambled

from tinyldm import compat

diffusers = pytest.importorskip("diffusers")


def drawn(seed):
    r = random.Random(seed)
    levels = r.randint(1, 3)
    return dict(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(8 * r.randint(1, 3) for _ in range(levels)),
        layers_per_block=r.randint(1, 2),
        latent_channels=r.choice([3, 4]),
        norm_num_groups=r.choice([4, 8]),
        scaling_factor=r.choice([0.18215, 1.0]),
        use_quant_conv=r.choice([True, False]),
        use_post_quant_conv=r.choice([True, False]),
        mid_block_add_attention=r.choice([True, True, False]),
        sample_size=r.choice([32, 64]),
        force_upcast=r.choice([True, False]),
    )


@torch.no_grad()
def assert_same(ours, theirs):
    x = torch.rand(2, 3, 16, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    a, b = (vae.encode(x).latent_dist for vae in (ours, theirs))
    for name in ("mean", "std", "var", "logvar"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.mode(), b.mode(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.kl(), b.kl(), rtol=1e-4, atol=1e-4)
    z = b.sample(torch.Generator().manual_seed(3))
    torch.testing.assert_close(a.sample(torch.Generator().manual_seed(3)), z, rtol=1e-4, atol=1e-4)
    for images in (ours.decode(z).sample, ours.decode(z, return_dict=False)[0]):
        torch.testing.assert_close(images, theirs.decode(z).sample, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours(x).sample, theirs(x).sample, rtol=1e-4, atol=1e-4)
    g, h = (torch.Generator().manual_seed(4) for _ in "gh")
    torch.testing.assert_close(
        ours(x, True, False, g)[0], theirs(x, True, False, h)[0], rtol=1e-4, atol=1e-4
    )
    assert torch.equal(ours.encode(x, return_dict=False)[0].mean, a.mean)


@pytest.mark.parametrize("seed", range(8))
def test_random_autoencoders_both_ways(seed, tmp_path):
    settings = drawn(seed)
    theirs = scrambled(diffusers.AutoencoderKL(**settings), seed)
    theirs.save_pretrained(tmp_path / "theirs" / "vae")
    ours = compat.AutoencoderKL.from_pretrained(tmp_path / "theirs", subfolder="vae")
    assert_same(ours, theirs)
    assert ours.num_parameters() == theirs.num_parameters()
    for name, value in settings.items():
        assert (
            ours.config[name]
            == getattr(ours.config, name)
            == (list(value) if isinstance(value, tuple) else value)
        )
    made = scrambled(compat.AutoencoderKL(**settings), seed + 1)
    made.save_pretrained(tmp_path / "ours")
    back, info = diffusers.AutoencoderKL.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values())
    assert_same(made, back.eval())


def test_pitfall_26_half_precision_encodes_in_float32():
    vae = scrambled(compat.AutoencoderKL(block_out_channels=(32,)), 0)
    x = torch.rand(1, 3, 8, 8)
    expected = vae.encode(x).latent_dist.mean
    half = vae.half().encode(x.half()).latent_dist.mean
    assert half.dtype == torch.float16
    assert vae.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, rtol=0.01, atol=0.01)


CHANGES = [
    dict(act_fn="gelu"),
    dict(down_block_types=("AttnDownEncoderBlock2D",)),
    dict(nonsense=1),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_supported_is_named(change):
    with pytest.raises((ValueError, TypeError), match=next(iter(change))):
        compat.AutoencoderKL(**change)


def test_parameters_of_the_published_one():
    settings = dict(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    with torch.device("meta"):
        ours, theirs = compat.AutoencoderKL(**settings), diffusers.AutoencoderKL(**settings)
    assert ours.num_parameters() == theirs.num_parameters() == 83_653_863
