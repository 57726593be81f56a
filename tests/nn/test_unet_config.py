import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from tinyldm import UNetConfig
from tinyldm.errors import InputError
from tinyldm.training.presets import PRESETS
from tinyldm.typed import as_type


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(channels=()), "channels is (), expected at least one level"),
        (
            dict(channels=(100, 200), attention="none"),
            "channels is (100, 200), expected multiples of groups, 32",
        ),
        (
            dict(channels=(32, 64), attention=("none",)),
            "attention is ('none',), expected 2 values, as in channels",
        ),
        (dict(blocks=(1, 2)), "blocks is (1, 2), expected 4 values"),
        (dict(heads=(8, 8, 8)), "heads is (8, 8, 8), expected 4 values"),
        (dict(heads=5), "expected heads that divide the 128 channels of their level"),
        (dict(heads=0), "heads is (0, 0, 0, 0), expected whole numbers above 0"),
        (dict(blocks=1.5), "expected whole numbers above 0"),
        (dict(depth=0), "depth"),
        (dict(in_channels=-1), "in_channels is -1, expected whole numbers above 0"),
        (dict(attention="full"), "expected one of none, self, cross at each level"),
        (dict(middle="full"), "middle is 'full', expected one of none, self, cross"),
        (dict(middle_blocks=1), "middle is 'cross', expected none, as middle_blocks is 1"),
        (dict(token_dim=None), "token_dim is None, expected the width of the tokens"),
        (dict(token_dim=0), "token_dim is 0, expected a whole number above 0, or None"),
        (dict(classes=3, vector_dim=3), "classes is 3, expected None where vector_dim is given"),
        (dict(time_dim=33), "time_dim is 33, expected an even width"),
        (
            dict(channels=(33,), attention="none", groups=3, middle="none"),
            "expected an even first width",
        ),
        (dict(dropout=1.0), "dropout is 1.0, expected a number in [0, 1)"),
        (dict(dropout="0.1"), "dropout is '0.1', expected a number"),
        (dict(scale_shift=1), "scale_shift is 1, expected True or False"),
        (dict(map_channels=-1), "map_channels is -1, expected a whole number from 0"),
    ],
)
def test_refusals_say_why(settings, words):
    with pytest.raises(ValueError, match="UNetConfig: ") as error:
        UNetConfig(**settings)
    message = str(error.value)
    assert words in message
    assert message.startswith("UNetConfig: ")
    assert "\n" not in message


@pytest.mark.parametrize("name", PRESETS)
def test_json_and_back(name):
    config = PRESETS[name]
    again = as_type(json.loads(json.dumps(asdict(config))), "network", UNetConfig)
    assert again == config
    assert hash(again) == hash(config)


def test_unknown_settings_fail():
    with pytest.raises(InputError, match="network: unknown key 'chanels'"):
        as_type({"chanels": (32,), "colour": 1}, "network", UNetConfig)


def test_one_value_stands_for_all_levels():
    config = UNetConfig(channels=(32, 64), attention="self", blocks=3, heads=4)
    assert (config.attention, config.blocks, config.heads) == (("self", "self"), (3, 3), (4, 4))
    with pytest.raises(FrozenInstanceError):
        config.blocks = 2


def test_a_long_value_is_shown_in_part():
    with pytest.raises(ValueError, match="attention is ") as error:
        UNetConfig(attention="é" * 10_000)
    assert len(str(error.value)) < 300
