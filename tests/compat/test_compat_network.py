"""The settings that only published networks need; see also test_unet_oracle.py."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from tinyldm import UNet
from tinyldm.compat.network import (
    Fourier,
    PublishedConfig,
    PublishedSinusoidal,
    PublishedUNet,
    build,
)
from tinyldm.nn.blocks import Sinusoidal
from tinyldm.training.format_1 import read_unet_config
from tinyldm.training.presets import PRESETS


def test_sinusoidal_against_math():
    t = [0.0, 1.0, 936.0, 998.5]
    plain = PublishedSinusoidal(8, flip_sin_to_cos=False, freq_shift=1.0)(torch.tensor(t))
    flipped = PublishedSinusoidal(8)(torch.tensor(t))
    assert torch.equal(flipped, Sinusoidal(8)(torch.tensor(t)))
    for row, value in enumerate(t):
        for k in range(4):
            ends_at_1e4, stops_before = 1e4 ** (-k / 3), 1e4 ** (-k / 4)
            assert plain[row, k] == pytest.approx(math.sin(value * ends_at_1e4), abs=2e-4)
            assert plain[row, 4 + k] == pytest.approx(math.cos(value * ends_at_1e4), abs=2e-4)
            assert flipped[row, k] == pytest.approx(math.cos(value * stops_before), abs=2e-4)
            assert flipped[row, 4 + k] == pytest.approx(math.sin(value * stops_before), abs=2e-4)


def test_fourier_waves_lie_on_circles():
    features = Fourier(16, False, log=True)(torch.tensor([0.5, 3.0, 700.0]))
    torch.testing.assert_close(features[:, :8] ** 2 + features[:, 8:] ** 2, torch.ones(3, 8))
    same = Fourier(16, True, log=True)(torch.ones(1))  # log 1 = 0: cosines 1, sines 0
    torch.testing.assert_close(same, torch.tensor([[1.0] * 8 + [0.0] * 8]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(middle_heads=7), "middle_heads is 7, expected heads that divide 512 channels"),
        (dict(middle_heads=0), "middle_heads is 0, expected a whole number above 0, or None"),
        (dict(middle_groups=5), "middle_groups is 5, expected a divisor of 512"),
        (dict(time_embedding="learned"), "expected one of sinusoidal, fourier, log_fourier"),
        (dict(freq_shift=64), "freq_shift is 64, expected a number in [0, 64)"),
        (dict(flip_sin_to_cos=1), "flip_sin_to_cos is 1, expected True or False"),
        (dict(token_dim=None), "token_dim is None, expected the width of the tokens"),
    ],
)
def test_refusals_say_why(settings, words):
    with pytest.raises(ValueError, match="PublishedConfig: ") as error:
        PublishedConfig(**settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_with_default_settings_it_is_the_networks_of_the_library(name):
    settings = asdict(PRESETS[name])
    with torch.device("meta"):
        ours, published = UNet(PRESETS[name]), build(**settings)
    assert isinstance(published, PublishedUNet)
    shapes = {name: weight.shape for name, weight in published.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in ours.state_dict().items()}


def test_with_default_settings_it_computes_the_same():
    config = PublishedConfig(channels=(8, 16), groups=4, heads=2, attention="self", middle="self")
    published = build(**json.loads(json.dumps(asdict(config))))
    assert published.config == config
    plain = UNet(read_unet_config(asdict(config)))
    for p in published.parameters():
        torch.nn.init.normal_(p, std=0.2)
    plain.load_state_dict(published.state_dict())
    x, t = torch.randn(2, 4, 6, 5), torch.tensor([3.0, 800.0])
    assert torch.equal(plain(x, t), published(x, t))
