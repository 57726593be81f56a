"""A run of three steps on a few toy monsters, and a model in which the prompt counts for much."""

import pytest
from stand_ins import scrambled

import tinyldm
from tinyldm.nn.unet import UNetConfig
from tinyldm.toy.monsters import write_toy
from tinyldm.training.presets import PRESETS

SMALL = UNetConfig(channels=(8, 16), attention=("cross", "cross"), blocks=1, heads=2, groups=4)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of the run."""
    place = tmp_path_factory.mktemp("play")
    write_toy(place / "toy", train_monsters=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setitem(PRESETS, "toy", SMALL)
        patch.setenv("TINYLDM_CACHE", str(place / "cache"))
        tinyldm.train(
            data="toy",
            vae="tiny",
            text_encoder="tiny",
            size="32x32",
            batch_size=4,
            max_steps=3,
            warmup=1,
            cfg_drop=0.1,
            precision="float32",
            device="cpu",
        )
    return place / "runs" / "toy-1"


@pytest.fixture(scope="session")
def model(trained):
    loaded = tinyldm.load(trained, device="cpu")
    scrambled(loaded.network)
    return loaded
