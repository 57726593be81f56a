"""The network against diffusers' UNets: same names, same weights, same output, same number of
parameters."""

import pytest
import torch

from tinyldm import Condition, UNet, UNetConfig
from tinyldm.compat.network import PublishedConfig, PublishedUNet
from tinyldm.training.presets import PRESETS

diffusers = pytest.importorskip("diffusers")

DOWN = {"none": "DownBlock2D", "self": "AttnDownBlock2D", "cross": "CrossAttnDownBlock2D"}
UP = {"none": "UpBlock2D", "self": "AttnUpBlock2D", "cross": "CrossAttnUpBlock2D"}


def theirs(config: UNetConfig, head_size: int | None = None, unconditional: bool = False, **more):
    """diffusers' network of the same shape; its attention_head_dim is a number of heads where there
    is a
    transformer and the width of a head where there is none."""
    common = dict(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        down_block_types=tuple(DOWN[kind] for kind in config.attention),
        up_block_types=tuple(UP[kind] for kind in reversed(config.attention)),
        norm_num_groups=config.groups,
        norm_eps=config.eps,
        num_class_embeds=config.classes,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
    )
    if isinstance(config, PublishedConfig):
        common |= dict(freq_shift=config.freq_shift, flip_sin_to_cos=config.flip_sin_to_cos)
    if unconditional:
        return diffusers.UNet2DModel(
            layers_per_block=config.blocks[0], attention_head_dim=head_size, **common, **more
        )
    middle = {"cross": "UNetMidBlock2DCrossAttn", "none": "UNetMidBlock2D"}[config.middle]
    return diffusers.UNet2DConditionModel(
        layers_per_block=config.blocks,
        cross_attention_dim=config.token_dim,
        mid_block_type=middle,
        attention_head_dim=head_size or config.heads,
        transformer_layers_per_block=config.depth,
        use_linear_projection=config.linear_projection,
        **common,
        **more,
    )


def scrambled(network, seed=0):
    """The network with every weight, norm and bias far from its first value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            size = 1 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.5
            p.copy_(
                torch.randn(p.shape, generator=generator) * size + (p.ndim == 1 and "norm" in name)
            )
    return network.eval()


def assert_same(config, oracle, hw=(8, 8), **inputs):
    oracle = scrambled(oracle)
    kind = PublishedUNet if isinstance(config, PublishedConfig) else UNet
    ours = kind(config).eval()
    ours.load_state_dict(oracle.state_dict())  # strict: the names are the same
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config.in_channels, *hw, generator=generator)
    t = torch.tensor([17.0, 801.0])
    parts, named = {}, {}
    if config.reads_tokens:
        parts["tokens"] = named["encoder_hidden_states"] = torch.randn(
            2, 5, config.token_dim, generator=generator
        )
        if inputs.get("masked"):
            parts["mask"] = torch.tensor([[True] * 5, [True, True, False, False, True]])
            named["encoder_attention_mask"] = parts["mask"]
    if config.classes:
        named["class_labels"] = torch.tensor([1, 2])
        parts["vector"] = torch.eye(config.classes)[named["class_labels"]]
    with torch.no_grad():
        expected = oracle(x, t, **named).sample
        got = ours(x, t, Condition(**parts) if parts else None)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_conditional_mixed():
    config = UNetConfig(
        channels=(32, 64, 96),
        attention=("self", "cross", "none"),
        blocks=(1, 2, 1),
        heads=(4, 8, 8),
        depth=(1, 2, 1),
        token_dim=24,
        groups=8,
    )
    assert_same(config, theirs(config, head_size=8), hw=(9, 6), masked=True)


def test_conditional_scale_shift():
    config = UNetConfig(
        channels=(32, 64),
        attention=("cross", "none"),
        middle="none",
        middle_blocks=1,
        heads=(4, 2),
        linear_projection=True,
        token_dim=24,
        groups=16,
        scale_shift=True,
        classes=5,
        in_channels=3,
    )
    assert_same(config, theirs(config), hw=(7, 8))


@pytest.mark.parametrize("scale_shift", [False, True])
def test_unconditional(scale_shift):
    config = PublishedConfig(
        channels=(32, 64),
        attention=("none", "self"),
        middle="self",
        heads=(1, 4),
        groups=8,
        scale_shift=scale_shift,
        middle_groups=0 if scale_shift else None,
        freq_shift=1.0,
        flip_sin_to_cos=False,
        classes=3,
        eps=1e-6,
    )
    assert_same(config, theirs(config, 16, unconditional=True))


def test_fourier():
    config = PublishedConfig(
        channels=(32,),
        attention=("cross",),
        blocks=1,
        time_embedding="fourier",
        time_dim=64,
        token_dim=8,
        heads=4,
    )
    assert_same(config, theirs(config, time_embedding_type="fourier"))
    config = PublishedConfig(
        channels=(32,),
        attention=("none",),
        middle="self",
        blocks=1,
        time_embedding="log_fourier",
        flip_sin_to_cos=False,
        heads=2,
    )
    oracle = theirs(config, 16, unconditional=True, time_embedding_type="fourier")
    # diffusers' unconditional network also divides its output by t when t comes as Fourier features
    divided = oracle.forward
    oracle.forward = lambda x, t: type(
        "Out", (), {"sample": divided(x, t).sample * t[:, None, None, None]}
    )
    assert_same(config, oracle)


@pytest.mark.parametrize("name", ["base", "large"])
def test_published_sizes(name):
    with torch.device("meta"):
        ours = UNet(PRESETS[name])
    with torch.device("meta"):
        oracle = diffusers.UNet2DConditionModel(
            block_out_channels=PRESETS[name].channels, cross_attention_dim=512, attention_head_dim=8
        )
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in oracle.state_dict().items()
    }
    assert sum(p.numel() for p in ours.parameters()) == oracle.num_parameters()
