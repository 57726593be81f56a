"""UNets: diffusers' settings as a PublishedConfig and back; the parameter names are the same."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.compat.config import Config, ConfiguredModel, Output
from tinyldm.compat.network import PublishedConfig, PublishedUNet
from tinyldm.condition import Condition
from tinyldm.nn.config import UNetConfig
from tinyldm.training.format_1 import PUBLISHED, read_unet_config

DOWN = {"none": "DownBlock2D", "self": "AttnDownBlock2D", "cross": "CrossAttnDownBlock2D"}
UP = {kind: name.replace("Down", "Up") for kind, name in DOWN.items()}
SAME = {  # settings that differ in nothing but their names
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "channels": "block_out_channels",
    "blocks": "layers_per_block",
    "depth": "transformer_layers_per_block",
    "linear_projection": "use_linear_projection",
    "token_dim": "cross_attention_dim",
    "vector_dim": "projection_class_embeddings_input_dim",
    "eps": "norm_eps",
    "classes": "num_class_embeds",
    "time_dim": "time_embedding_dim",
    "flip_sin_to_cos": "flip_sin_to_cos",
    "freq_shift": "freq_shift",
    "groups": "norm_num_groups",
    "dropout": "dropout",
}


class _Model(ConfiguredModel, PublishedUNet):
    """A UNet made from diffusers' settings."""

    def set_up(self, given: Config) -> None:
        """The network of these settings."""
        try:
            native = self.native(given)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {_in_their_words(error)}") from None
        PublishedUNet.__init__(self, native)
        self.config = Config(given, given.defaulted, native)

    @staticmethod
    def native(c: Config) -> PublishedConfig:
        """The PublishedConfig that these settings mean."""
        raise NotImplementedError

    def predict(self, sample, timestep, tokens=None, mask=None, class_labels=None) -> Tensor:
        """The prediction (b, out_channels, h, w).

        tokens: (b, n, c); mask: (b, n) bool or 0 and 1
        class_labels: numbers (b,), or vectors (b, d) to project
        """
        if self.config.classes and class_labels is not None:
            class_labels = F.one_hot(class_labels.long(), self.config.classes).to(self.dtype)
        if mask is not None:
            mask = mask.bool()
        condition = Condition(tokens, mask, vector=class_labels)
        return PublishedUNet.forward(self, sample, timestep, condition)


class UNet2DConditionModel(_Model):
    """The UNet with cross-attention to encoder_hidden_states (b, n, cross_attention_dim).

    attention_head_dim is, as ever, the number of heads where there is cross-attention, and the
    width of a head elsewhere.
    """

    @staticmethod
    def native(c: Config) -> PublishedConfig:
        """The PublishedConfig that these settings mean."""
        shared = _shared_settings(c)
        kinds, classes, vector_dim = shared["attention"], shared["classes"], shared["vector_dim"]
        dims = _per_level(c.attention_head_dim, len(kinds))
        for kind, dim, mirrored in zip(kinds, dims, reversed(dims), strict=True):
            if kind == "self" and dim != mirrored:
                # in diffusers AttnUpBlock2D takes the entry of the wrong end
                raise ValueError(
                    f"attention_head_dim is {dims}, expected the same at an AttnDownBlock2D's "
                    "mirror image"
                )
        projects = c.class_embed_type is not None
        if projects != (vector_dim is not None) or (vector_dim and classes):
            raise ValueError(
                "class_embed_type 'projection' goes with projection_class_embeddings_input_dim "
                "alone"
            )
        fourier = c.time_embedding_type == "fourier"
        if fourier and shared["time_dim"] is None:
            shared["time_dim"] = 2 * c.block_out_channels[0]
        heads = []
        for kind, width, dim in zip(kinds, c.block_out_channels, dims, strict=True):
            heads.append(dim if kind == "cross" else _heads_of_width(kind, width, dim))
        cross = c.mid_block_type == "UNetMidBlock2DCrossAttn"
        blocks_of = {None: 0, "UNetMidBlock2D": 1, "UNetMidBlock2DCrossAttn": 2}
        return PublishedConfig(
            **shared,
            heads=tuple(heads),
            middle="cross" if cross else "none",
            middle_blocks=blocks_of[c.mid_block_type],
            middle_heads=dims[-1] if cross else None,
            time_embedding="fourier" if fourier else "sinusoidal",
        )

    def forward(
        self,
        sample,
        timestep,
        encoder_hidden_states=None,
        class_labels=None,
        timestep_cond=None,
        attention_mask=None,
        cross_attention_kwargs=None,
        added_cond_kwargs=None,
        down_block_additional_residuals=None,
        mid_block_additional_residual=None,
        down_intrablock_additional_residuals=None,
        encoder_attention_mask=None,
        return_dict=True,
    ):
        """.sample, the prediction (b, out_channels, h, w).

        sample: (b, in_channels, h, w); timestep: (b,) or one number. The other arguments but
        encoder_attention_mask and return_dict are there to be left at None.
        """
        _refuse(
            timestep_cond=timestep_cond,
            attention_mask=attention_mask,
            cross_attention_kwargs=cross_attention_kwargs,
            added_cond_kwargs=added_cond_kwargs,
            down_block_additional_residuals=down_block_additional_residuals,
            mid_block_additional_residual=mid_block_additional_residual,
            down_intrablock_additional_residuals=down_intrablock_additional_residuals,
        )
        prediction = self.predict(
            sample,
            timestep,
            tokens=encoder_hidden_states,
            mask=encoder_attention_mask,
            class_labels=class_labels,
        )
        return Output(prediction) if return_dict else (prediction,)


class UNet2DModel(_Model):
    """The UNet without tokens; attention_head_dim is the width of a head, None for one head."""

    @staticmethod
    def native(c: Config) -> PublishedConfig:
        """The PublishedConfig that these settings mean."""
        shared = _shared_settings(c)
        kinds = shared["attention"]
        if "cross" in kinds:
            raise ValueError("down_block_types with CrossAttnDownBlock2D need UNet2DConditionModel")
        fourier = c.time_embedding_type == "fourier"
        shared["flip_sin_to_cos"] = c.flip_sin_to_cos and not fourier
        heads = [
            _heads_of_width(kind, width, c.attention_head_dim)
            for kind, width in zip(kinds, c.block_out_channels, strict=True)
        ]
        middle: dict[str, Any] = {"middle": "none"}
        has_middle = c.mid_block_type is not None
        if has_middle and c.add_attention:
            # with scale_shift the attention has a norm only if attn_norm_num_groups asks for one
            groups = c.attn_norm_num_groups or (0 if shared["scale_shift"] else c.norm_num_groups)
            width = c.block_out_channels[-1]
            middle = {
                "middle": "self",
                "middle_groups": groups,
                "middle_heads": _heads_of_width("self", width, c.attention_head_dim),
            }
        return PublishedConfig(
            **shared,
            **middle,
            heads=tuple(heads),
            middle_blocks=2 if has_middle else 0,
            time_embedding="log_fourier" if fourier else "sinusoidal",
        )

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """.sample, the prediction; with Fourier features of log t it is divided by t."""
        prediction = self.predict(sample, timestep, class_labels=class_labels)
        if self.config.time_embedding_type == "fourier":
            t = torch.as_tensor(timestep).to(prediction)
            prediction = prediction / t.reshape(-1, 1, 1, 1)
        return Output(prediction) if return_dict else (prediction,)


def _refuse(**others: Any) -> None:
    """ValueError for the first of these arguments that says anything."""
    for name, value in others.items():
        if value is not None and value != {}:
            raise ValueError(f"UNet2DConditionModel: argument {name!r} is not supported")


def _in_their_words(error: ValueError) -> str:
    """What PublishedConfig refuses, with diffusers' name of the setting, which comes first."""
    text = str(error).removeprefix("PublishedConfig: ")
    name, _, rest = text.partition(" ")
    return f"{SAME.get(name, name)} {rest}"


def _shared_settings(c: Config) -> dict[str, Any]:
    """The settings of a PublishedConfig that both kinds of network give in the same way."""
    native_of = {name: kind for kind, name in DOWN.items()}
    kinds = tuple(native_of.get(name, name) for name in c.down_block_types)
    mirrored = [UP.get(kind) for kind in reversed(kinds)]
    if list(c.up_block_types) != mirrored:
        raise ValueError(
            f"down_block_types {tuple(c.down_block_types)} with up_block_types "
            f"{tuple(c.up_block_types)}: expected {', '.join(DOWN.values())} and their mirror image"
        )
    shared = {ours: c[theirs] for ours, theirs in SAME.items() if theirs in c}
    shared.setdefault("vector_dim", None)
    shared["attention"] = kinds
    shared["scale_shift"] = c.resnet_time_scale_shift == "scale_shift"
    return shared


def _per_level(value: Any, n: int) -> tuple[Any, ...]:
    """One value for each of n levels."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * n


def _heads_of_width(kind: str, width: int, head_width: int | None) -> int:
    """How many heads of that width self-attention has; None is one head."""
    if kind != "self" or not head_width:
        return 1
    if width % head_width:
        raise ValueError(
            f"attention_head_dim is {head_width}, expected the width of a head, "
            f"a divisor of {width}"
        )
    return width // head_width


def from_native(config: UNetConfig, sample_size=None) -> UNet2DConditionModel | UNet2DModel:
    """The UNet of diffusers' that is the network of a config, on the meta device.

    ValueError if there is none.
    """
    c = PublishedConfig.from_dict(config.to_dict())
    settings = {theirs: getattr(c, ours) for ours, theirs in SAME.items()}
    settings |= {
        "sample_size": sample_size,
        "in_channels": c.in_channels + c.map_channels,
        "down_block_types": tuple(DOWN[kind] for kind in c.attention),
        "up_block_types": tuple(UP[kind] for kind in reversed(c.attention)),
        "resnet_time_scale_shift": "scale_shift" if c.scale_shift else "default",
        "time_embedding_type": "positional" if c.time_embedding == "sinusoidal" else "fourier",
    }
    cls: type[UNet2DConditionModel] | type[UNet2DModel] = UNet2DModel
    settings_of = _without_tokens
    if c.reads_tokens or c.vector_dim or c.middle_blocks == 1 or c.time_embedding == "fourier":
        cls = UNet2DConditionModel
        settings_of = _with_tokens
    settings |= settings_of(c)
    known = cls.known
    with torch.device("meta"):
        made = cls(**{name: value for name, value in settings.items() if name in known})
        wanted = PublishedUNet(c)
    for got, part in zip_longest(_parts(made), _parts(wanted)):
        if got != part:
            raise ValueError(
                f"{cls.__name__} has no such network: "
                f"{part or 'nothing'} would be {got or 'missing'}"
            )
    return made


def network_recipe(unet: UNet2DConditionModel | UNet2DModel) -> dict[str, Any]:
    """How a checkpoint describes this network: by a UNetConfig, or where that can't, by build()."""
    config: Any = unet.config
    settings: dict[str, Any] = config.native.to_dict()
    plain = read_unet_config(settings)
    if plain is not None:
        return plain.to_dict()
    return {"build": PUBLISHED, "arguments": settings}


def _with_tokens(c: PublishedConfig) -> dict[str, Any]:
    """The settings of c that UNet2DConditionModel has in its own way."""
    dims: list[int | None] = []  # attention_head_dim; None where it does not matter
    for level in c.levels:
        dim = {"self": level.width // level.heads, "cross": level.heads, "none": None}
        dims.append(dim[level.attention])
    if dims[-1] is None and c.middle == "cross":
        dims[-1] = c.middle_heads or c.levels[-1].heads
    middle_of = {0: None, 1: "UNetMidBlock2D"}
    return {
        "attention_head_dim": tuple(
            dim or mirrored or 1 for dim, mirrored in zip(dims, reversed(dims), strict=True)
        ),
        "mid_block_type": middle_of.get(c.middle_blocks, "UNetMidBlock2DCrossAttn"),
        "class_embed_type": "projection" if c.vector_dim else None,
    }


def _without_tokens(c: PublishedConfig) -> dict[str, Any]:
    """The settings of c that UNet2DModel has in its own way."""
    last = c.levels[-1]
    head_width = last.width // (c.middle_heads or last.heads)
    for level in reversed(c.levels):
        if level.attention == "self":
            head_width = level.width // level.heads
    return {
        "layers_per_block": c.levels[0].blocks,
        "add_attention": c.middle == "self",
        "attn_norm_num_groups": c.middle_groups,
        "attention_head_dim": head_width,
        "mid_block_type": "UNetMidBlock2D" if c.middle_blocks else None,
    }


def _parts(network: nn.Module) -> list[tuple[str, ...]]:
    """Each module by name, with all that decides what it computes: attributes and shapes."""
    parts = []
    for name, module in network.named_modules():
        if not name:
            continue
        facts = []
        for key, value in vars(module).items():
            if key != "training" and key[0] != "_" and isinstance(value, (int, float, tuple)):
                facts.append(f"{key}={value}")
        for key, weight in [
            *module.named_parameters(recurse=False),
            *module.named_buffers("", False),
        ]:
            facts.append(f"{key}={tuple(weight.shape)}")
        parts.append((name, type(module).__name__, *facts))
    return parts
