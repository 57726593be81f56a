"""What may stand in diffusers' config files: the type of each setting, for the typed reader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from tinyldm.compat.settings import SETTINGS, Setting
from tinyldm.typed import Count, Index, Limits, Positive, Side, as_type

Share = Annotated[float, Limits(ge=0, lt=1)]
Beta = Annotated[float, Limits(gt=0, le=1)]
Names = str | Annotated[tuple[str, ...], Limits(min_length=1)]
PerLevel = Count | Annotated[tuple[Count, ...], Limits(min_length=1)]
Numbers = Annotated[tuple[float, ...], Limits(min_length=1)]

TYPES: dict[str, Any] = {
    "num_train_timesteps": Count,
    "beta_start": Beta,
    "beta_end": Beta,
    "trained_betas": Annotated[tuple[Beta, ...], Limits(min_length=2)],
    "dynamic_thresholding_ratio": Annotated[float, Limits(gt=0, le=1)],
    "clip_sample_range": Positive,
    "sample_max_value": Positive,
    "steps_offset": Index,
    "lambda_min_clipped": float,
    "disable_corrector": tuple[Index, ...],
    "shift": Positive,
    "base_shift": float,
    "max_shift": float,
    "base_image_seq_len": Count,
    "max_image_seq_len": Count,
    "sample_size": Side | tuple[Side, Side],
    "in_channels": Count,
    "out_channels": Count,
    "freq_shift": float,
    "down_block_types": Names,
    "up_block_types": Names,
    "block_out_channels": Annotated[tuple[Count, ...], Limits(min_length=1)],
    "layers_per_block": PerLevel,
    "dropout": Share,
    "norm_num_groups": Count,
    "norm_eps": Share,
    "cross_attention_dim": Count,
    "transformer_layers_per_block": PerLevel,
    "attention_head_dim": PerLevel | None,
    "num_class_embeds": Count,
    "time_embedding_dim": Count,
    "projection_class_embeddings_input_dim": Count,
    "attn_norm_num_groups": Count,
    "upcast_attention": bool | None,
    "act_fn": str,
    "latent_channels": Count,
    "scaling_factor": Positive,
    "shift_factor": float,
    "latents_mean": Numbers,
    "latents_std": Numbers,
}
"""Of settings that are neither switches nor restricted to some values; besides, null may stand
wherever it is the default."""


def type_of(name: str, setting: Setting) -> Any:
    """The type of the values that a setting may have in a file; a switch is a bool."""
    if setting.supported is None:
        given = TYPES.get(name, bool)
        return given | None if setting.default is None else given
    if any(isinstance(value, float) for value in setting.supported):  # which no Literal may have
        least, most = min(setting.supported), max(setting.supported)
        return Annotated[float, Limits(ge=least, le=most)]
    return Literal[setting.supported]


@cache
def type_of_file(kind: str, foreign: frozenset[str]) -> Any:
    """The type of the config file of a class: a dataclass with a field for each setting.

    foreign: settings that may be there and say nothing, whatever their values
    """
    entries = []
    for name, setting in SETTINGS[kind].items():
        entries.append((name, type_of(name, setting), field(default=setting.default)))
    for name in sorted(foreign - SETTINGS[kind].keys()):
        entries.append((name, Any, field(default=None)))
    return make_dataclass(kind, entries, frozen=True)


def check_settings(
    config: Mapping[str, Any], file: Path, kind: str, foreign: frozenset[str]
) -> None:
    """InputError, naming file and key, for a setting that a class does not have or support."""
    given = {}
    for name, value in config.items():
        endless = value == -math.inf and name == "lambda_min_clipped"  # its default, and no number
        if not name.startswith("_") and not endless:
            given[name] = value
    as_type(given, f"{file}: {kind}", type_of_file(kind, foreign))
