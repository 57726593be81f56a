"""docs/held_out_error.py, with a network that guesses black whatever it sees."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.tasks.base import read_examples
from tinyldm.training.settings import TrainSettings

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("held_out_error")


@pytest.fixture
def photos(tmp_path):
    """Twelve grey pictures; picture k has the brightness 20 k."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(12):
        Image.new("RGB", (8, 8), (20 * k,) * 3).save(folder / f"{k}.png")
    return folder


def model_of(folder, hold_out, prediction, schedule):
    """A loaded run whose network knows that everything is black."""

    def network(x_t, t, condition):
        level = schedule.level(t[0].item())
        eps = (x_t + level.alpha) / level.sigma  # x0 = -1
        v = level.alpha * eps + level.sigma
        return {"v": v, "flow": eps + 1}[prediction]

    settings = TrainSettings(task="unconditional", data=str(folder), hold_out=hold_out)
    config = {"settings": settings.to_dict(), "data_folder": str(folder)}
    return SimpleNamespace(
        size=(8, 8),
        text_encoder=None,
        checkpoint=SimpleNamespace(config=config, prediction=prediction),
        schedule=schedule,
        network=network,
        encode=lambda images: images,
    )


@pytest.mark.parametrize(("path", "prediction"), [("cosine", "v"), ("flow", "flow")])
def test_the_error_is_that_of_held_out_pictures_whatever_is_predicted(
    script, photos, monkeypatch, path, prediction
):
    model = model_of(photos, 0.25, prediction, NoiseSchedule(path))
    monkeypatch.setattr(script.tinyldm, "load", lambda run, device: model)
    monkeypatch.setattr(script, "encode_prompts", lambda encoder, prompts: None)
    _, examples = read_examples(photos, task="unconditional", hold_out=0.25)
    apart = [from_bytes(to_bytes(resize(load_image(e.image), (8, 8)))) for e in examples.held_out]
    assert len(apart) == 3
    truth = (torch.stack(apart) + 1).square().mean().item()
    assert script.errors("runs/any") == pytest.approx([truth] * len(script.LAMBDAS), rel=1e-3)


def test_a_run_that_held_nothing_out_is_told_so(script, photos, monkeypatch):
    model = model_of(photos, 0.0, "v", NoiseSchedule("cosine"))
    monkeypatch.setattr(script.tinyldm, "load", lambda run, device: model)
    with pytest.raises(SystemExit, match="runs/any: was trained without --hold-out"):
        script.errors("runs/any")
