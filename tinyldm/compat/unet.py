"""UNets: diffusers' settings as a UNetConfig and back. The parameter names are the same from the start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyldm.compat.config import SETTINGS, Config, ConfiguredModel, Output
from tinyldm.condition import Condition
from tinyldm.nn.unet import UNet, UNetConfig

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


class _Model(ConfiguredModel, UNet):
    """A UNet made from diffusers' settings."""

    def __init__(self, *args, **settings):
        given = self.settings(args, settings)
        try:
            native = self.native(given)
        except ValueError as error:
            text = str(error).removeprefix("UNetConfig: ")
            name = text.split()[0]
            raise ValueError(
                f"{type(self).__name__}: {SAME.get(name, name)}{text[len(name) :]}"
            ) from None
        super().__init__(native)
        self.config = Config(given, given.defaulted, native)

    def predict(self, sample, timestep, tokens=None, mask=None, class_labels=None) -> Tensor:
        """The network's answer; class_labels are numbers (b,), or vectors (b, d) to project."""
        if self.config.classes and class_labels is not None:
            class_labels = F.one_hot(class_labels.long(), self.config.classes).to(self.dtype)
        parts = {
            "tokens": tokens,
            "mask": None if mask is None else mask.bool(),
            "vector": class_labels,
        }
        parts = {name: part for name, part in parts.items() if part is not None}
        return UNet.forward(self, sample, timestep, Condition(**parts) if parts else None)


class UNet2DConditionModel(_Model):
    """The UNet with cross-attention to encoder_hidden_states (b, n, cross_attention_dim).

    attention_head_dim is, as ever, the number of heads where there is cross-attention, and their width elsewhere.
    """

    @staticmethod
    def native(c: Config) -> UNetConfig:
        """The UNetConfig that these settings mean."""
        shape, kinds = _common(c)
        dims = _each(c.attention_head_dim, kinds)
        if any(kind == "self" and d != twin for kind, d, twin in zip(kinds, dims, reversed(dims))):
            # in diffusers AttnUpBlock2D takes the entry of the wrong end
            raise ValueError(
                f"attention_head_dim is {dims}, expected the same at an AttnDownBlock2D's mirror image"
            )
        if (c.class_embed_type is None) != (shape["vector_dim"] is None) or (
            shape["vector_dim"] and shape["classes"]
        ):
            raise ValueError(
                "class_embed_type 'projection' goes with projection_class_embeddings_input_dim alone"
            )
        fourier = c.time_embedding_type == "fourier"
        if fourier and shape["time_dim"] is None:
            shape["time_dim"] = 2 * c.block_out_channels[0]
        middle, blocks = {None: ("none", 0), "UNetMidBlock2D": ("none", 1)}.get(
            c.mid_block_type, ("cross", 2)
        )
        heads = [
            d if kind == "cross" else _heads(kind, w, d)
            for kind, w, d in zip(kinds, c.block_out_channels, dims)
        ]
        return UNetConfig(
            **shape,
            heads=heads,
            middle=middle,
            middle_blocks=blocks,
            middle_heads=dims[-1] if middle == "cross" else None,
            time_embedding="fourier" if fourier else "sinusoidal",
        )

    def forward(
        self,
        sample,
        timestep,
        encoder_hidden_states=None,
        class_labels=None,
        *,
        encoder_attention_mask=None,
        return_dict=True,
        **others,
    ):
        """The prediction (b, out_channels, h, w) for sample (b, in_channels, h, w) at timestep, (b,) or one number."""
        for name, value in others.items():
            if value is not None and value != {}:
                raise ValueError(f"UNet2DConditionModel: argument {name!r} is not supported")
        out = Output(
            self.predict(
                sample, timestep, encoder_hidden_states, encoder_attention_mask, class_labels
            )
        )
        return out if return_dict else tuple(out)


class UNet2DModel(_Model):
    """The UNet without tokens; attention_head_dim is the width of a head, None for one head."""

    @staticmethod
    def native(c: Config) -> UNetConfig:
        """The UNetConfig that these settings mean."""
        shape, kinds = _common(c)
        if "cross" in kinds:
            raise ValueError("down_block_types with CrossAttnDownBlock2D need UNet2DConditionModel")
        fourier, middle = c.time_embedding_type == "fourier", c.mid_block_type is not None
        groups = c.attn_norm_num_groups or (0 if shape["scale_shift"] else c.norm_num_groups)
        heads = [
            _heads(kind, w, c.attention_head_dim) for kind, w in zip(kinds, c.block_out_channels)
        ]
        more = {}
        if middle and c.add_attention:
            middle_heads = _heads("self", c.block_out_channels[-1], c.attention_head_dim)
            more = dict(middle="self", middle_groups=groups, middle_heads=middle_heads)
        return UNetConfig(
            **shape | dict(flip_sin_to_cos=c.flip_sin_to_cos and not fourier),
            heads=heads,
            middle_blocks=2 if middle else 0,
            **{"middle": "none"} | more,
            time_embedding="log_fourier" if fourier else "sinusoidal",
        )

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The prediction (b, out_channels, h, w); with Fourier features of log t it is divided by t."""
        out = self.predict(sample, timestep, class_labels=class_labels)
        if self.config.time_embedding_type == "fourier":
            out = out / torch.as_tensor(timestep).to(out).reshape(-1, 1, 1, 1)
        return Output(out) if return_dict else (out,)


def _common(c: Config) -> tuple[dict, tuple[str, ...]]:
    """The settings of a UNetConfig that both kinds give in the same way, and the attention of each level."""
    kinds = tuple(
        {name: kind for kind, name in DOWN.items()}.get(name, name) for name in c.down_block_types
    )
    if list(c.up_block_types) != [UP.get(kind) for kind in reversed(kinds)]:
        blocks = f"down_block_types {tuple(c.down_block_types)} with up_block_types {tuple(c.up_block_types)}"
        raise ValueError(f"{blocks}: expected {', '.join(DOWN.values())} and their mirror image")
    shape = {ours: c[theirs] for ours, theirs in SAME.items() if theirs in c}
    return shape | dict(
        attention=kinds, scale_shift=c.resnet_time_scale_shift == "scale_shift"
    ), kinds


def _each(value, levels) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * len(levels)


def _heads(kind: str, width: int, head_width: int | None) -> int:
    """How many heads of that width self-attention has; None is one head."""
    if kind != "self":
        return 1
    if width % (head_width or width):
        raise ValueError(
            f"attention_head_dim is {head_width}, expected the width of a head, a divisor of {width}"
        )
    return width // (head_width or width)


def from_native(c: UNetConfig, sample_size=None) -> UNet2DConditionModel | UNet2DModel:
    """diffusers' kind of UNet that is the network of c, on the meta device; ValueError if there is none."""
    heads = c.middle_heads or c.heads[-1]
    settings = {theirs: getattr(c, ours) for ours, theirs in SAME.items()} | dict(
        sample_size=sample_size,
        in_channels=c.in_channels + c.map_channels,
        down_block_types=tuple(DOWN[kind] for kind in c.attention),
        up_block_types=tuple(UP[kind] for kind in reversed(c.attention)),
        resnet_time_scale_shift="scale_shift" if c.scale_shift else "default",
        time_embedding_type="positional" if c.time_embedding == "sinusoidal" else "fourier",
    )
    if c.reads_tokens or c.vector_dim or c.middle_blocks == 1 or c.time_embedding == "fourier":
        cls, levels = UNet2DConditionModel, zip(c.channels, c.attention, c.heads)
        dims = [{"self": w // h, "cross": h, "none": None}[kind] for w, kind, h in levels]
        dims[-1] = dims[-1] or (heads if c.middle == "cross" else None)
        settings |= dict(
            attention_head_dim=tuple(dim or twin or 1 for dim, twin in zip(dims, reversed(dims))),
            mid_block_type={0: None, 1: "UNetMidBlock2D"}.get(
                c.middle_blocks, "UNetMidBlock2DCrossAttn"
            ),
            class_embed_type="projection" if c.vector_dim else None,
        )
    else:
        cls, at = UNet2DModel, [*c.attention, "self"].index("self")
        settings |= dict(
            layers_per_block=c.blocks[0],
            add_attention=c.middle == "self",
            attn_norm_num_groups=c.middle_groups,
            attention_head_dim=[*c.channels, c.channels[-1]][at] // [*c.heads, heads][at],
            mid_block_type="UNetMidBlock2D" if c.middle_blocks else None,
        )
    with torch.device("meta"):
        made, wanted = (
            cls(**{k: v for k, v in settings.items() if k in SETTINGS[cls.__name__]}),
            UNet(c),
        )
    for got, part in zip([*_parts(made), None], [*_parts(wanted), None]):
        if got != part:
            raise ValueError(
                f"{cls.__name__} has no such network: {part or 'nothing'} would be {got or 'missing'}"
            )
    return made


def _parts(network: UNet) -> list[tuple]:
    """Each module by name, with all that decides what it computes from its weights."""
    facts = ("heads", "num_groups", "eps", "p", "width", "log", "scale_shift", "weight", "stride")
    return [
        (
            name,
            type(module).__name__,
            *(
                f"{fact}={tuple(v.shape) if isinstance(v, Tensor) else v}"
                for fact in facts
                if (v := getattr(module, fact, None)) is not None
            ),
        )
        for name, module in network.named_modules()
        if name
    ]
