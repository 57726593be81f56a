"""What the chapters find where they are read: a small toy set, and a run that was trained on it."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

import tinyldm
from tinyldm.nn.config import UNetConfig
from tinyldm.toy.monsters import write_toy
from tinyldm.training.presets import PRESETS

COURSE = Path(__file__).parents[2] / "docs" / "course"
SMALL = UNetConfig(  # the network of the toy monsters with a twelfth of its channels
    channels=(8, 12, 16),
    attention=("none", "cross", "cross"),
    blocks=1,
    heads=2,
    groups=4,
    scale_shift=True,
    token_dim=128,
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with data/toy, a few monsters, and runs/toy-1, four steps of a small network."""
    folder = tmp_path_factory.mktemp("course")
    write_toy(folder / "data" / "toy", train_monsters=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TINYLDM_CACHE", str(folder / "cache"))
        patch.setitem(PRESETS, "toy", SMALL)
        tinyldm.train(
            data="data/toy",
            vae="tiny",
            text_encoder="tiny",
            size=64,
            batch_size=8,
            max_steps=4,
            warmup=1,
            cfg_drop=0.1,
            precision="float32",
            device="cpu",
        )
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of that folder to write into, which is the working folder."""
    folder = tmp_path / "place"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TINYLDM_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture(scope="module")
def solutions(request):
    """The module docs/course/solutions/NN_*.py, in test_solutions_NN.py."""
    number = re.search(r"_(\d\d)$", request.module.__name__)[1]
    (path,) = (COURSE / "solutions").glob(f"{number}_*.py")
    spec = importlib.util.spec_from_file_location(f"solutions_{number}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
