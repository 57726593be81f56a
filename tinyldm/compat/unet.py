"""UNets: diffusers' settings as a PublishedConfig and back; the parameter names are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyldm.compat.config import Config, ConfiguredModel, Output
from tinyldm.compat.network import PublishedConfig, PublishedUNet
from tinyldm.condition import Condition
from tinyldm.nn.blocks import ClassTable, Perceptron

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

    is_gradient_checkpointing = False

    def set_up(self, given: Config) -> None:
        """The network of these settings."""
        native = self.native(given)
        PublishedUNet.__init__(self, native)
        self.config = Config(given, given.defaulted, native)
        self._vector_dim = None  # class labels are checked here, and not as a vector
        if given.class_embed_type == "identity":
            self.class_embedding = nn.Identity()
        elif given.class_embed_type == "timestep":
            self.class_embedding = Perceptron(self.time_proj.width, native.time_width)
        elif native.vector_width is None:
            self.register_module("class_embedding", None)

    @classmethod
    def native(cls, given: Config) -> PublishedConfig:
        """The PublishedConfig that these settings mean, in diffusers' words where there is none."""
        try:
            return cls.translate(given)
        except ValueError as error:
            raise ValueError(f"{cls.__name__}: {_in_their_words(error)}") from None

    @staticmethod
    def translate(c: Config) -> PublishedConfig:
        """The PublishedConfig that these settings mean."""
        raise NotImplementedError

    def predict(self, sample, timestep, tokens=None, mask=None, class_labels=None) -> Tensor:
        """The prediction (b, out_channels, h, w).

        tokens: (b, n, c); mask: (b, n) bool or 0 and 1
        class_labels: numbers (b,), or vectors (b, d) to project
        """
        if mask is not None:
            mask = mask.bool()
        condition = Condition(tokens, mask, vector=class_labels)
        return PublishedUNet.forward(self, sample, timestep, condition)

    def check_inputs(self, x: Tensor, t: Tensor | float, condition: Condition) -> None:
        """As in UNet, but class labels may be whatever class_embedding takes."""
        if (condition.vector is None) != (self.class_embedding is None):
            expected = "no class_labels" if self.class_embedding is None else "class_labels"
            raise ValueError(f"{type(self).__name__}: expected {expected}")
        super().check_inputs(x, t, replace(condition, vector=None))

    def _embed(self, x: Tensor, t: Tensor | float, condition: Condition) -> Tensor:
        """The time embedding plus class_embedding, which a script may have replaced."""
        emb = super()._embed(x, t, replace(condition, vector=None))
        labels = condition.vector
        if labels is None:
            return emb
        if self.config.class_embed_type == "timestep":
            labels = self.time_proj(labels)
        elif isinstance(self.class_embedding, ClassTable):
            labels = F.one_hot(labels.long(), len(self.class_embedding.weight))
        if labels.is_floating_point() or isinstance(self.class_embedding, ClassTable):
            labels = labels.to(emb.dtype)  # else an nn.Embedding of the script's own takes numbers
        return emb + self.class_embedding(labels).to(emb.dtype)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func=None) -> None:
        """Compute the insides of every level again on the way back, instead of keeping them."""
        self.support(gradient_checkpointing_func=(gradient_checkpointing_func, None))
        self.is_gradient_checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        """Keep what the way back needs."""
        self.is_gradient_checkpointing = False

    def run(self, level: Any, h: Tensor, **inputs: Any) -> Any:
        """As in UNet; or keep what goes into a level alone, and compute it twice (1604.06174)."""
        if not self.is_gradient_checkpointing:
            return super().run(level, h, **inputs)
        skips = inputs.pop("skips", None)
        if skips is None:
            return checkpoint(level, h, use_reentrant=False, **inputs)
        kept = tuple(skips)  # the level takes from its list, and must find it whole again

        def run_up(h: Tensor, **inputs: Any) -> Any:
            return level(h, **inputs, skips=list(kept))

        out = checkpoint(run_up, h, use_reentrant=False, **inputs)
        del skips[-len(level.resnets) :]
        return out


class UNet2DConditionModel(_Model):
    """The UNet with cross-attention to encoder_hidden_states (b, n, cross_attention_dim).

    attention_head_dim is, as ever, the number of heads where there is cross-attention, and the
    width of a head elsewhere.
    """

    @staticmethod
    def translate(c: Config) -> PublishedConfig:
        """The PublishedConfig that these settings mean."""
        shared = _shared_settings(c)
        kinds, vector_dim = shared["attention"], shared["vector_dim"]
        dims = _per_level(c.attention_head_dim, len(kinds))
        for kind, dim, mirrored in zip(kinds, dims, reversed(dims), strict=True):
            if kind == "self" and dim != mirrored:
                # in diffusers AttnUpBlock2D takes the entry of the wrong end
                raise ValueError(
                    f"attention_head_dim is {dims}, expected the same at an AttnDownBlock2D's "
                    "mirror image"
                )
        projects = c.class_embed_type == "projection"
        if projects != (vector_dim is not None) or (vector_dim and c.num_class_embeds):
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
    def translate(c: Config) -> PublishedConfig:
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
    for name in ("down_block_types", "up_block_types"):
        if len(c[name]) != len(c.block_out_channels):
            raise ValueError(
                f"{name} is {tuple(c[name])}, expected {len(c.block_out_channels)} types, one for "
                "each of block_out_channels"
            )
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
    if c.class_embed_type is not None:
        shared["classes"] = None  # the type has the say, as published
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
