"""UNets: diffusers' settings as a UNetConfig and back. The parameter names are the same from the start."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyldm.compat.config import Config, ConfiguredModel
from tinyldm.condition import Condition
from tinyldm.nn.unet import UNet, UNetConfig

DOWN = {"none": "DownBlock2D", "self": "AttnDownBlock2D", "cross": "CrossAttnDownBlock2D"}
UP = {kind: name.replace("Down", "Up") for kind, name in DOWN.items()}
PLAIN = ("center_input_sample", "downsample_padding", "mid_block_scale_factor")
ONLY = dict(act_fn=("silu", "swish"), resnet_time_scale_shift=("default", "scale_shift"),
            time_embedding_type=("positional", "fourier"))  # fmt: skip


class UNetOutput(NamedTuple):
    """What a UNet returns."""

    sample: Tensor


class _Model(ConfiguredModel, UNet):
    """A UNet made from diffusers' settings."""

    def __init__(self, *args, **settings):
        given = self.settings(args, settings)
        try:
            native = self.native(given)
            super().__init__(native)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {str(error).removeprefix('UNetConfig: ')}") from None
        self.config = Config(given, given.defaulted, native)

    def _run(self, sample, timestep, tokens=None, mask=None, class_labels=None) -> Tensor:
        """The network's answer; class_labels are numbers (b,), or vectors (b, d) to project."""
        if self.config.classes and class_labels is not None:
            class_labels = F.one_hot(class_labels.long(), self.config.classes).to(self.dtype)
        parts = {"tokens": tokens, "mask": None if mask is None else mask.bool(), "vector": class_labels}
        parts = {name: part for name, part in parts.items() if part is not None}
        return UNet.forward(self, sample, timestep, Condition(**parts) if parts else None)


def _common(c: Config) -> dict:
    """What both kinds of UNet say in the same way."""
    levels = len(c.block_out_channels)
    kinds = [{name: kind for kind, name in DOWN.items()}.get(name, name) for name in c.down_block_types]
    if unknown := set(kinds) - set(DOWN):
        raise ValueError(f"not supported: down_block_types with {', '.join(sorted(unknown))}")
    if list(c.up_block_types) != [UP[kind] for kind in reversed(kinds)]:
        raise ValueError(f"not supported: up_block_types {tuple(c.up_block_types)} that don't mirror down_block_types")
    if len(kinds) != levels:
        raise ValueError(f"down_block_types has {len(kinds)} entries, expected {levels}, as in block_out_channels")
    return dict(in_channels=c.in_channels, out_channels=c.out_channels, channels=tuple(c.block_out_channels),
                attention=tuple(kinds), blocks=_each(c.layers_per_block, levels), groups=c.norm_num_groups, eps=c.norm_eps,
                dropout=c.dropout, scale_shift=c.resnet_time_scale_shift == "scale_shift", time_dim=c.time_embedding_dim,
                freq_shift=c.freq_shift)  # fmt: skip


def _each(value, n: int) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * n


def _heads(width: int, head_width: int | None) -> int:
    """How many heads of that width; None is one head."""
    if head_width is not None and width % head_width:
        raise ValueError(f"attention_head_dim is {head_width}, expected the width of a head, a divisor of {width}")
    return width // (head_width or width)


class UNet2DConditionModel(_Model):
    """The UNet with cross-attention to encoder_hidden_states (b, n, cross_attention_dim).

    attention_head_dim is, as ever, the number of heads where there is cross-attention, and their width elsewhere.
    """

    DEFAULTS = dict(
        sample_size=None, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True, freq_shift=0,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, only_cross_attention=False,
        block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1,
        dropout=0.0, act_fn="silu", norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=1280,
        transformer_layers_per_block=1, reverse_transformer_layers_per_block=None, encoder_hid_dim=None,
        encoder_hid_dim_type=None, attention_head_dim=8, num_attention_heads=None, dual_cross_attention=False,
        use_linear_projection=False, class_embed_type=None, addition_embed_type=None, addition_time_embed_dim=None,
        num_class_embeds=None, upcast_attention=False, resnet_time_scale_shift="default", resnet_skip_time_act=False,
        resnet_out_scale_factor=1.0, time_embedding_type="positional", time_embedding_dim=None,
        time_embedding_act_fn=None, timestep_post_act=None, time_cond_proj_dim=None, conv_in_kernel=3,
        conv_out_kernel=3, projection_class_embeddings_input_dim=None, attention_type="default",
        class_embeddings_concat=False, mid_block_only_cross_attention=None, cross_attention_norm=None,
        addition_embed_type_num_heads=64)  # fmt: skip
    FIXED = (
        *PLAIN, "only_cross_attention", "reverse_transformer_layers_per_block", "encoder_hid_dim", "encoder_hid_dim_type",
        "num_attention_heads", "dual_cross_attention", "addition_embed_type", "addition_time_embed_dim",
        "resnet_skip_time_act", "resnet_out_scale_factor", "time_embedding_act_fn", "timestep_post_act",
        "time_cond_proj_dim", "conv_in_kernel", "conv_out_kernel", "attention_type", "class_embeddings_concat",
        "cross_attention_norm", "addition_embed_type_num_heads")  # fmt: skip
    ONLY = ONLY | dict(class_embed_type=(None, "projection"), mid_block_only_cross_attention=(None, False),
                       mid_block_type=("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None))  # fmt: skip

    @staticmethod
    def native(c: Config) -> UNetConfig:
        """The UNetConfig that these settings mean."""
        common, levels = _common(c), len(c.block_out_channels)
        dims, token_dims = _each(c.attention_head_dim, levels), set(_each(c.cross_attention_dim, levels))
        middle, blocks = {None: ("none", 0), "UNetMidBlock2D": ("none", 1)}.get(c.mid_block_type, ("cross", 2))
        if len(token_dims) > 1:
            raise ValueError(f"not supported: cross_attention_dim {tuple(c.cross_attention_dim)} with different widths")
        if fourier := c.time_embedding_type == "fourier":
            common["time_dim"] = c.time_embedding_dim or 2 * c.block_out_channels[0]
        if (c.class_embed_type == "projection") != (c.projection_class_embeddings_input_dim is not None):
            raise ValueError("class_embed_type='projection' and projection_class_embeddings_input_dim go together")
        if c.class_embed_type and c.num_class_embeds:
            raise ValueError("not supported: num_class_embeds together with class_embed_type")
        if any(kind == "self" and d != up for kind, d, up in zip(common["attention"], dims, reversed(dims))):
            # diffusers gives AttnUpBlock2D the entry of the wrong end
            raise ValueError(f"not supported: attention_head_dim {dims}, not the same from both ends at an AttnDownBlock2D")
        heads = [_heads(w, d) if kind == "self" else 1 if kind == "none" else d
                 for w, kind, d in zip(common["channels"], common["attention"], dims)]  # fmt: skip
        return UNetConfig(
            **common, heads=tuple(heads), depth=_each(c.transformer_layers_per_block, levels), middle=middle,
            middle_blocks=blocks, middle_heads=dims[-1] if middle == "cross" else None, token_dim=token_dims.pop(),
            linear_projection=c.use_linear_projection, classes=c.num_class_embeds,
            vector_dim=c.projection_class_embeddings_input_dim, flip_sin_to_cos=c.flip_sin_to_cos,
            time_embedding="fourier" if fourier else "sinusoidal")  # fmt: skip

    def forward(self, sample, timestep, encoder_hidden_states=None, class_labels=None, timestep_cond=None,
                attention_mask=None, cross_attention_kwargs=None, added_cond_kwargs=None,
                down_block_additional_residuals=None, mid_block_additional_residual=None,
                down_intrablock_additional_residuals=None, encoder_attention_mask=None, return_dict=True):  # fmt: skip
        """The prediction (b, out_channels, h, w) for sample (b, in_channels, h, w) at timestep, (b,) or one number."""
        for name, value in dict(
            timestep_cond=timestep_cond, attention_mask=attention_mask, added_cond_kwargs=added_cond_kwargs or None,
            cross_attention_kwargs=cross_attention_kwargs or None, mid_block_additional_residual=mid_block_additional_residual,
            down_block_additional_residuals=down_block_additional_residuals,
            down_intrablock_additional_residuals=down_intrablock_additional_residuals,
        ).items():  # fmt: skip
            if value is not None:
                raise ValueError(f"UNet2DConditionModel: not supported: {name}")
        out = self._run(sample, timestep, encoder_hidden_states, encoder_attention_mask, class_labels)
        return UNetOutput(out) if return_dict else (out,)


class UNet2DModel(_Model):
    """The UNet without tokens; attention_head_dim is the width of a head, None for one head."""

    DEFAULTS = dict(
        sample_size=None, in_channels=3, out_channels=3, center_input_sample=False, time_embedding_type="positional",
        time_embedding_dim=None, freq_shift=0, flip_sin_to_cos=True,
        down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * 3, mid_block_type="UNetMidBlock2D",
        up_block_types=("AttnUpBlock2D",) * 3 + ("UpBlock2D",), block_out_channels=(224, 448, 672, 896),
        layers_per_block=2, mid_block_scale_factor=1, downsample_padding=1, downsample_type="conv", upsample_type="conv",
        dropout=0.0, act_fn="silu", attention_head_dim=8, norm_num_groups=32, attn_norm_num_groups=None, norm_eps=1e-5,
        resnet_time_scale_shift="default", add_attention=True, class_embed_type=None, num_class_embeds=None,
        num_train_timesteps=None)  # fmt: skip
    FIXED = (*PLAIN, "downsample_type", "upsample_type", "class_embed_type")
    ONLY = ONLY | dict(mid_block_type=("UNetMidBlock2D", None))

    @staticmethod
    def native(c: Config) -> UNetConfig:
        """The UNetConfig that these settings mean."""
        common = _common(c)
        if "cross" in common["attention"]:
            raise ValueError("UNet2DModel has no cross-attention; use UNet2DConditionModel")
        fourier, middle = c.time_embedding_type == "fourier", c.mid_block_type is not None
        attention = middle and c.add_attention
        groups = c.attn_norm_num_groups or (0 if common["scale_shift"] else c.norm_num_groups)
        heads = [_heads(w, c.attention_head_dim) if kind == "self" else 1
                 for w, kind in zip(common["channels"], common["attention"])]  # fmt: skip
        return UNetConfig(
            **common, heads=tuple(heads), middle="self" if attention else "none", middle_blocks=2 if middle else 0,
            middle_heads=_heads(common["channels"][-1], c.attention_head_dim) if attention else None,
            middle_groups=groups if attention else None, classes=c.num_class_embeds, token_dim=None,
            flip_sin_to_cos=c.flip_sin_to_cos and not fourier,
            time_embedding="log_fourier" if fourier else "sinusoidal")  # fmt: skip

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The prediction (b, out_channels, h, w); with Fourier features of log t it is divided by t."""
        out = self._run(sample, timestep, class_labels=class_labels)
        if self.config.time_embedding_type == "fourier":
            out = out / torch.as_tensor(timestep).to(out).reshape(-1, 1, 1, 1)
        return UNetOutput(out) if return_dict else (out,)


def from_native(config: UNetConfig) -> UNet2DConditionModel | UNet2DModel:
    """diffusers' kind of UNet, without weights on the meta device, that is the network of config; ValueError if none."""
    c, heads = config, config.middle_heads or config.heads[-1]
    common = dict(
        in_channels=c.in_channels + c.map_channels, out_channels=c.out_channels, block_out_channels=c.channels,
        down_block_types=tuple(DOWN[kind] for kind in c.attention), norm_num_groups=c.groups, norm_eps=c.eps,
        up_block_types=tuple(UP[kind] for kind in reversed(c.attention)), dropout=c.dropout, freq_shift=c.freq_shift,
        resnet_time_scale_shift="scale_shift" if c.scale_shift else "default", num_class_embeds=c.classes,
        flip_sin_to_cos=c.flip_sin_to_cos)  # fmt: skip
    if c.reads_tokens or c.vector_dim or c.middle_blocks == 1 or c.time_embedding == "fourier":
        per_level = zip(c.channels, c.attention, c.heads)
        dims = [{"self": w // h, "cross": h, "none": None}[kind] for w, kind, h in per_level]
        dims[-1] = dims[-1] or (heads if c.middle == "cross" else None)
        dims = [dim or twin or 1 for dim, twin in zip(dims, reversed(dims))]
        kind = UNet2DConditionModel
        common |= dict(
            layers_per_block=c.blocks, cross_attention_dim=c.token_dim, attention_head_dim=tuple(dims),
            transformer_layers_per_block=c.depth, use_linear_projection=c.linear_projection,
            mid_block_type={0: None, 1: "UNetMidBlock2D"}.get(c.middle_blocks, "UNetMidBlock2DCrossAttn"),
            class_embed_type="projection" if c.vector_dim else None, projection_class_embeddings_input_dim=c.vector_dim,
            time_embedding_type="fourier" if c.time_embedding == "fourier" else "positional",
            time_embedding_dim=c.time_dim)  # fmt: skip
    else:
        at = [i for i, kind in enumerate(c.attention) if kind == "self"]
        width = c.channels[at[0]] // c.heads[at[0]] if at else c.channels[-1] // heads
        kind = UNet2DModel
        common |= dict(
            layers_per_block=c.blocks[0], attention_head_dim=width, add_attention=c.middle == "self",
            mid_block_type="UNetMidBlock2D" if c.middle_blocks else None, attn_norm_num_groups=c.middle_groups or None,
            time_embedding_type="fourier" if c.time_embedding == "log_fourier" else "positional",
            time_embedding_dim=c.time_dim)  # fmt: skip
    with torch.device("meta"):
        made = kind(**common)
    wanted, got = (_canonical(x) for x in (replace(c, in_channels=c.in_channels + c.map_channels, map_channels=0), made.config.native))
    for name in vars(wanted):
        if getattr(wanted, name) != getattr(got, name):
            raise ValueError(f"{kind.__name__} can't say {name}={getattr(wanted, name)!r} of this network")
    return made


def _canonical(c: UNetConfig) -> UNetConfig:
    """The same network, with what has no effect on it or follows from the rest written in one way."""
    heads = c.middle_heads or c.heads[-1] if c.middle != "none" else None
    deep = [kind == "cross" for kind in c.attention]
    deep[-1] = deep[-1] or c.middle == "cross"
    return replace(
        c, middle_heads=heads, heads=tuple(h if kind != "none" else 1 for h, kind in zip(c.heads, c.attention)),
        depth=tuple(d if used else 1 for d, used in zip(c.depth, deep)), time_dim=c.time_width,
        middle_groups=(c.groups if c.middle_groups is None else c.middle_groups) if c.middle == "self" else None,
        token_dim=c.token_dim if c.reads_tokens else None, linear_projection=c.linear_projection and c.reads_tokens,
        freq_shift=float(c.freq_shift))  # fmt: skip
