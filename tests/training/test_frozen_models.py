"""The frozen models that a checkpoint names."""

from pathlib import Path

import pytest

from tinyldm.errors import InputError
from tinyldm.training.checkpoint import Config
from tinyldm.training.frozen_models import load_frozen

TINY = {"vae": "tiny", "size": [32, 32], "condition": {"task": "text", "name": "tiny"}}


@pytest.mark.parametrize(
    "wrong", [{"vae": "no/such vae"}, {"condition": {"task": "text", "name": "%s%n"}}]
)
def test_a_model_that_cannot_be_loaded_is_told_with_the_config_that_names_it(wrong):
    file = Path("run/checkpoints/step-0000001/config.json")
    with pytest.raises(InputError, match=f"^{file}: (autoencoder no/such vae|text encoder %s%n)"):
        load_frozen(Config(TINY | wrong, file), "cpu")
    with pytest.raises(InputError, match="^(autoencoder no/such vae|text encoder %s%n)"):
        load_frozen(TINY | wrong, "cpu")  # a new run, whose options were given
