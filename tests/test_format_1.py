"""Runs that older versions of the library trained, kept as they were written.

`text`, of the version before the redesign: a tiny network after 30 steps on the toy set of one
monster, with two pictures that were drawn with it. `oldest`, of the first version that trained,
which only knew captions: a tinier one after 5 steps, with predictions that it made.
"""

import shutil
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

import sample as sample_script
import train as train_script
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNet
from tinyldm.sampling.settings import SampleOptions
from tinyldm.toy.monsters import write_toy
from tinyldm.training.checkpoint import (
    checkpoints,
    conditioning_of,
    find_checkpoint,
    load_checkpoint,
    settings_of,
    task_of,
)
from tinyldm.training.frozen_models import load_frozen
from tinyldm.weights import read_weights

ASSETS = Path(__file__).parent / "assets" / "format_1"
PICTURES = sorted(ASSETS.glob("*.png"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A copy of the run, in an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(ASSETS / "text", "text")
    return Path("text")


def test_it_loads(run):
    checkpoint = load_checkpoint(run)
    assert isinstance(checkpoint.network, UNet)
    assert not checkpoint.network.training
    assert checkpoint.config["format"] == 1
    assert checkpoint.config["step"] == 30
    assert checkpoint.prediction == "v"
    assert checkpoint.schedule.kind == "cosine"
    assert checkpoint.schedule.shift == 0.5
    assert checkpoint.mean.shape == checkpoint.std.shape == (12, 1, 1)
    assert checkpoint.null.tokens.shape[::2] == (1, 128)
    assert task_of(checkpoint.config).name == "text"


def test_it_draws_the_same_pictures(run):
    """What it was watched by is drawn under the same names, from the same noise."""
    options = SampleOptions(run="text", steps=4, precision="float32", device="cpu", out="drawn")
    sample_script.draw(options)
    assert len(list(Path("drawn").glob("*.png"))) == 16
    assert len(PICTURES) == 2
    for file in PICTURES:
        before, now = (np.asarray(Image.open(f), float) for f in (file, Path("drawn") / file.name))
        assert now.shape == (64, 64, 3)
        assert abs(now - before).mean() < 0.01  # grey levels of 255: the last bit of a few pixels


@pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 12, reason="an older Pillow draws the toy set otherwise"
)
def test_it_goes_on(run):
    """The toy set is drawn anew, and is what the run was trained on: latents, captions, models."""
    write_toy(Path("toy"), train_monsters=1)
    before = read_weights(find_checkpoint(run) / "training.safetensors")
    train_script.train({"resume": True, "out": "text", "max_steps": 31, "device": "cpu"})
    old, new = checkpoints(run)
    assert (old.name, new.name) == ("step-0000030", "step-0000031")
    after = read_weights(new / "training.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert {int(value) for name, value in after.items() if name.startswith("step.")} == {31}
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > 0.9 * len(before)
    for name in moved:
        if name.startswith("weights."):  # one step further, and not from a start of its own
            assert (after[name] - before[name]).abs().max() < 0.01
    lines = (run / "log.csv").read_text().splitlines()
    assert lines[:31] == (ASSETS / "text" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[31:]] == ["31"]
    config = load_checkpoint(run).config
    assert config["preview_prompts"] == load_checkpoint(ASSETS / "text").config["preview_prompts"]
    assert config["network"] == load_checkpoint(ASSETS / "text").config["network"]


def test_a_checkpoint_that_says_nothing_of_its_task_is_one_of_captions():
    """And predicts what it predicted in the version that wrote it, whose autoencoder is gone."""
    checkpoint = load_checkpoint(ASSETS / "oldest")
    assert settings_of(checkpoint.config).loss_weights == "plain"
    assert "condition" not in checkpoint.config
    assert "data_folder" not in checkpoint.config
    assert task_of(checkpoint.config).name == "text"
    assert conditioning_of(checkpoint.config) == {"task": "text", "name": "tiny"}
    expected = read_weights(ASSETS / "oldest" / "expected.safetensors")
    with torch.no_grad():
        prediction = checkpoint.network(
            expected["x_t"], expected["t"], checkpoint.null.expand(len(expected["t"]))
        )
    torch.testing.assert_close(prediction, expected["prediction"])
    with pytest.raises(InputError, match="tiny: is not the vae that .*oldest was trained with"):
        load_frozen(checkpoint.config, "cpu", ASSETS / "oldest")
