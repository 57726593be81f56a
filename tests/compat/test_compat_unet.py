"""UNets against diffusers: random settings, weights far from their first values, both ways through
folders."""

import copy
import json
import pickle
import random

import pytest
import torch
from scrambling import scrambled

from tinyldm import compat
from tinyldm.compat.native import from_native
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNetConfig
from tinyldm.training.presets import PRESETS

diffusers = pytest.importorskip("diffusers")


def drawn(seed):
    """Settings of a network, and its kind."""
    r = random.Random(seed)
    conditional, levels, groups = r.random() < 0.65, r.randint(1, 4), r.choice([4, 8])
    kinds = [r.choice(["", "Attn", "CrossAttn"][: 3 if conditional else 2]) for _ in range(levels)]
    settings = dict(
        in_channels=r.choice([3, 4, 9]),
        out_channels=r.choice([3, 4, 8]),
        norm_num_groups=groups,
        block_out_channels=tuple(groups * r.choice([2, 4, 6]) for _ in range(levels)),
        dropout=r.choice([0.0, 0.1]),
        down_block_types=tuple(f"{k}DownBlock2D" for k in kinds),
        norm_eps=r.choice([1e-5, 0.1]),
        up_block_types=tuple(f"{k}UpBlock2D" for k in kinds[::-1]),
        resnet_time_scale_shift=r.choice(["default", "scale_shift"]),
        num_class_embeds=r.choice([None, 5]),
        time_embedding_type=r.choice(["positional", "positional", "fourier"]),
        time_embedding_dim=r.choice([None, 24]),
        flip_sin_to_cos=r.choice([True, False]),
        freq_shift=r.choice([0, 1]),
        sample_size=r.choice([None, 8]),
    )
    if not conditional:
        return "UNet2DModel", settings | dict(
            layers_per_block=r.randint(1, 2),
            attention_head_dim=r.choice([None, 4, 8]),
            add_attention=r.choice([True, False]),
            attn_norm_num_groups=r.choice([None, 2]),
        )
    many = r.random() < 0.5
    settings |= dict(
        layers_per_block=[r.randint(1, 2) for _ in kinds] if many else r.randint(1, 2),
        cross_attention_dim=r.choice([10, 16]),
        transformer_layers_per_block=[r.randint(1, 2) for _ in kinds]
        if many
        else r.choice([1, 1, 2]),
        attention_head_dim=[r.choice([2, 4]) for _ in kinds]
        if many and "Attn" not in kinds
        else r.choice([2, 4]),
        mid_block_type=r.choice(
            ["UNetMidBlock2DCrossAttn", "UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None]
        ),
        use_linear_projection=r.choice([True, False]),
    )
    if settings["num_class_embeds"] is None and r.random() < 0.3:
        settings |= dict(class_embed_type="projection", projection_class_embeddings_input_dim=6)
    return "UNet2DConditionModel", settings


def inputs(model, seed):
    """What diffusers' network takes, for two samples."""
    g = torch.Generator().manual_seed(seed)
    c = model.config
    labels = torch.tensor([1, 4]) if c.num_class_embeds else None
    more = {}
    if isinstance(model, diffusers.UNet2DConditionModel):
        if any("Cross" in str(name) for name in (*c.down_block_types, c.mid_block_type)):
            more["encoder_hidden_states"] = torch.randn(2, 5, c.cross_attention_dim, generator=g)
            if seed % 2:
                more["encoder_attention_mask"] = torch.tensor(
                    [[1, 1, 1, 1, 1], [1, 1, 0, 0, 1]]
                ).bool()
        else:
            more["encoder_hidden_states"] = None
        if c.class_embed_type:
            labels = torch.randn(2, 6, generator=g)
    # AttnUpBlock2D and UNet2DModel of diffusers want whole halves
    odd = "cross_attention_dim" in c and not any(
        name.startswith("Attn") for name in c.up_block_types
    )
    x = torch.randn(2, c.in_channels, 9 if odd else 8, 8, generator=g)
    t = (
        [2, 17] if c.time_embedding_type == "fourier" else [17, 801]
    )  # float32 knows the angle of no late t
    return dict(sample=x, timestep=torch.tensor(t), class_labels=labels, **more)


@torch.no_grad()
def assert_same(ours, theirs, seed):
    taken = inputs(theirs, seed)
    expected = theirs(**taken).sample
    torch.testing.assert_close(
        ours(**taken).sample, expected, rtol=1e-4, atol=1e-4 * expected.std().item()
    )
    assert torch.equal(ours(**taken, return_dict=False)[0], ours(**taken)[0])


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_both_ways(seed, tmp_path):
    kind, settings = drawn(seed)
    theirs = scrambled(getattr(diffusers, kind)(**settings), seed)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(compat, kind).from_pretrained(tmp_path / "theirs")
    assert not ours.training
    assert ours.dtype == torch.float32
    assert_same(ours, theirs, seed)
    fixed = [
        p for p in theirs.parameters() if not p.requires_grad
    ]  # Fourier frequencies, a buffer of ours
    assert ours.num_parameters() == theirs.num_parameters() - sum(p.numel() for p in fixed)

    made = scrambled(getattr(compat, kind)(**settings), seed + 1)
    made.save_pretrained(tmp_path / "ours" / "unet")
    back, info = getattr(diffusers, kind).from_pretrained(
        tmp_path / "ours", subfolder="unet", output_loading_info=True
    )
    assert not any(info.values())
    assert_same(made, back.eval(), seed)
    again = from_native(made.config.native)
    assert {n: w.shape for n, w in again.state_dict().items()} == {
        n: w.shape for n, w in made.state_dict().items()
    }


@pytest.mark.parametrize("shift", ["default", "scale_shift"])
@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("middle", ["attention", "plain", None])
def test_every_middle_of_the_network_without_tokens(shift, groups, middle):
    """The norm before its attention is there or not, and of so many groups, depending on two
    settings."""
    settings = dict(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        layers_per_block=1,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        resnet_time_scale_shift=shift,
        attn_norm_num_groups=groups,
        norm_eps=0.1,
        add_attention=middle == "attention",
        sample_size=None,
        mid_block_type=middle and "UNetMidBlock2D",
    )
    theirs, ours = scrambled(diffusers.UNet2DModel(**settings), 0), compat.UNet2DModel(**settings)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours.eval(), theirs, 0)
    assert from_native(ours.config.native).state_dict().keys() == ours.state_dict().keys()


@pytest.mark.parametrize("seed", [seed for seed in range(20) if drawn(seed)[1]["dropout"]])
def test_dropout_is_in_the_same_places(seed, monkeypatch):
    """Of a training network, with a dropout that takes away the same of every number."""
    monkeypatch.setattr(
        torch.nn.functional, "dropout", lambda x, p, training, inplace: x * (1 - 4 * p * training)
    )
    kind, settings = drawn(seed)
    theirs = scrambled(getattr(diffusers, kind)(**settings), seed)
    ours = getattr(compat, kind)(**settings)
    ours.load_state_dict(
        {name: w for name, w in theirs.state_dict().items() if name in ours.state_dict()}
    )
    assert_same(ours.train(), theirs.train(), seed)
    with pytest.raises(AssertionError):
        assert_same(ours.train(), theirs.eval(), seed)


PUBLISHED = {
    "CompVis/stable-diffusion-v1-4": (859_520_964, dict(cross_attention_dim=768, sample_size=64)),
    "stabilityai/stable-diffusion-2-1": (
        865_910_724,
        dict(
            cross_attention_dim=1024,
            attention_head_dim=[5, 10, 20, 20],
            use_linear_projection=True,
            upcast_attention=True,
        ),
    ),
    "the monster assignment's base network": (
        None,
        dict(
            block_out_channels=(128, 256, 512, 512), cross_attention_dim=512, attention_head_dim=8
        ),
    ),
    "the monster assignment's large network": (
        None,
        dict(
            block_out_channels=(256, 384, 512, 768), cross_attention_dim=512, attention_head_dim=8
        ),
    ),
    "diffusers' tutorial of unconditional training": (
        113_673_219,
        dict(
            sample_size=128,
            block_out_channels=(128, 128, 256, 256, 512, 512),
            down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        ),
    ),
    "every default of UNet2DModel": (None, dict(add_attention=True)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_published_settings(name):
    count, settings = PUBLISHED[name]
    kind = "UNet2DConditionModel" if "cross_attention_dim" in settings else "UNet2DModel"
    with torch.device("meta"):
        ours, theirs = (getattr(lib, kind)(**settings) for lib in (compat, diffusers))
    assert (
        ours.num_parameters() == ours.num_parameters(only_trainable=True) == theirs.num_parameters()
    )
    assert count is None or ours.num_parameters() == count
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }


def small(**more):
    return compat.UNet2DConditionModel(
        **dict(
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            norm_num_groups=4,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=6,
            attention_head_dim=2,
        )
        | more
    )


@pytest.mark.parametrize(
    "change",
    [
        dict(act_fn="gelu"),
        dict(only_cross_attention=True),
        dict(addition_embed_type="text_time"),
        dict(conv_in_kernel=5),
        dict(dual_cross_attention=True),
        dict(mid_block_type="UNetMidBlock2DSimpleCrossAttn"),
        dict(downsample_padding=0),
        dict(down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D")),
        dict(cross_attention_dim=(6, 8)),
        dict(up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")),
        dict(class_embed_type="simple_projection"),
        dict(nonsense=1),
        dict(resnet_time_scale_shift="spatial"),
        dict(encoder_hid_dim=4),
        dict(resnet_out_scale_factor=2.0),
        dict(num_attention_heads=2),
        dict(block_out_channels=(8, 18)),
        dict(
            attention_head_dim=(2, 4),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ),
        dict(attention_type="gated"),
        dict(time_embedding_type="learned"),
        dict(center_input_sample=True),
    ],
)
def test_what_is_not_supported_is_named(change):
    with pytest.raises((ValueError, TypeError), match=next(iter(change))):
        small(**change)


@pytest.mark.parametrize(
    "name",
    [
        "timestep_cond",
        "attention_mask",
        "cross_attention_kwargs",
        "added_cond_kwargs",
        "down_block_additional_residuals",
        "mid_block_additional_residual",
    ],
)
def test_what_forward_does_not_support_is_named(name):
    x, tokens = torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 6)
    with pytest.raises(ValueError, match=name):
        small()(x, 1, tokens, **{name: {"scale": 1}})
    small()(x, 1, tokens, cross_attention_kwargs={}, added_cond_kwargs={})


def test_config_is_read_only_and_survives_copies():
    unet = small(sample_size=8)
    assert unet.config.sample_size == unet.config["sample_size"] == 8
    assert unet.config.get("nothing") is None
    with pytest.raises(TypeError, match="read only"):
        unet.config.sample_size = 3
    with pytest.raises(TypeError, match="read only"):
        unet.config["sample_size"] = 3
    with pytest.raises(AttributeError, match="nothing"):
        _ = unet.config.nothing
    x, tokens, from_config = (
        torch.zeros(1, 4, 8, 8),
        torch.zeros(1, 2, 6),
        compat.UNet2DConditionModel.from_config,
    )
    for again in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet)), from_config(unet.config)):
        assert again.config == unet.config
        assert again(x, 1, tokens).sample.shape == x.shape
    assert small(act_fn="swish").config.act_fn == "swish"


def test_loading_is_strict(tmp_path):
    unet = small()
    unet.save_pretrained(tmp_path / "unet")
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert config["_class_name"] == "UNet2DConditionModel"
    assert config["block_out_channels"] == [
        8,
        16,
    ]
    half = compat.UNet2DConditionModel.from_pretrained(
        tmp_path, subfolder="unet", torch_dtype=torch.bfloat16
    )
    assert half.dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"config\.json"):
        compat.UNet2DConditionModel.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"fp16\.safetensors"):
        compat.UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", variant="fp16")
    with pytest.raises(InputError, match=r"conv_in\.weight has shape"):
        compat.UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", in_channels=5)
    with pytest.raises(ValueError, match="low_cpu"):
        compat.UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", low_cpu=True)
    with pytest.raises(ValueError, match="use_safetensors"):
        compat.UNet2DConditionModel.from_pretrained(
            tmp_path, subfolder="unet", use_safetensors=False
        )
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"new_thing": 1}))
    with pytest.raises(InputError, match=r"config\.json: .*unknown key 'new_thing'"):
        compat.UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_networks_of_diffusers(name):
    made = from_native(PRESETS[name])
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**made.config)
    assert {n: w.shape for n, w in made.state_dict().items()} == {
        n: w.shape for n, w in theirs.state_dict().items()
    }


def test_networks_that_diffusers_lacks_are_refused():
    shape = dict(channels=(8, 16), groups=4, heads=2)
    with pytest.raises(ValueError, match=r"mid_block\.attentions\.0"):
        from_native(UNetConfig(**shape, attention="cross", middle="self"))
    with pytest.raises(
        ValueError, match=r"heads=2.*heads=4"
    ):  # its heads have one width, not one number
        from_native(UNetConfig(**shape, attention="self", middle="none"))
    made = from_native(
        UNetConfig(**shape | dict(heads=(2, 4)), attention="self", middle="self", map_channels=3)
    )
    assert made.config.in_channels == 7
    assert type(made) is compat.UNet2DModel
