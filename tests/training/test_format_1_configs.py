"""Networks as checkpoints of format 1 describe them."""

from dataclasses import fields

import pytest

from tinyldm.compat.network import PublishedUNet
from tinyldm.nn.config import UNetConfig
from tinyldm.training.format_1 import read_unet_config
from tinyldm.training.network import build_network
from tinyldm.training.presets import PRESETS

FORMAT_1 = {  # a config as checkpoints of format 1 have it
    "in_channels": 4,
    "out_channels": 4,
    "channels": [96, 128, 160],
    "attention": ["none", "cross", "cross"],
    "blocks": [1, 1, 1],
    "heads": [4, 4, 4],
    "depth": [1, 1, 1],
    "middle": "cross",
    "middle_blocks": 2,
    "middle_heads": None,
    "middle_groups": None,
    "linear_projection": False,
    "token_dim": 128,
    "vector_dim": None,
    "classes": None,
    "map_channels": 0,
    "scale_shift": True,
    "time_embedding": "sinusoidal",
    "time_dim": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0.0,
    "groups": 16,
    "eps": 1e-05,
    "dropout": 0.0,
}


def test_configs_of_format_1_are_read():
    assert read_unet_config(FORMAT_1) == PRESETS["toy"]
    # as the converted Stable Diffusion has it: the last level has no attention, so its heads are
    # free
    converted = FORMAT_1 | {
        "attention": ["cross", "cross", "none"],
        "heads": [4, 4, 1],
        "middle_heads": 8,
    }
    assert read_unet_config(converted).heads == (4, 4, 8)
    same = FORMAT_1 | {"middle_heads": 4, "middle_groups": 16}
    assert read_unet_config(same) == PRESETS["toy"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time_embedding", "fourier"),
        ("flip_sin_to_cos", False),
        ("freq_shift", 1.0),
        ("middle_heads", 8),
        ("middle_groups", 8),
    ],
)
def test_retired_settings_with_another_value_build_what_they_say(name, value):
    """Only compat has such a network, and an old checkpoint of it still loads."""
    values = FORMAT_1 | {name: value}
    assert read_unet_config(values) is None
    assert name not in {field.name for field in fields(UNetConfig)}
    with pytest.raises(TypeError, match="unexpected keyword"):
        UNetConfig(**values)
    network = build_network(values)
    assert isinstance(network, PublishedUNet)
    assert getattr(network.config, name) == value
