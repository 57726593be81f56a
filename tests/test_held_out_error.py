"""docs/held_out_error.py, with networks whose errors are known."""

import importlib
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tinyldm.condition import Condition
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.tasks.base import read_examples
from tinyldm.training.settings import TrainSettings

DOCS = Path(__file__).parents[1] / "docs"
PATHS = [("cosine", "v"), ("flow", "flow")]


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


def loaded(monkeypatch, script, folder, guess, path, prediction, hold_out=0.25):
    """Let the script load a run whose network guesses x0 = guess(x_t, level).

    Its latents are half the pictures, and its condition is a one for each prompt.
    """
    schedule = NoiseSchedule(path)

    def network(x_t, t, condition):
        assert condition.vector.tolist() == [[1.0]] * len(x_t)
        level = schedule.level(t[0].item())
        x0 = guess(x_t, level)
        eps = (x_t - level.alpha * x0) / level.sigma
        return {"v": level.alpha * eps - level.sigma * x0, "flow": eps - x0}[prediction]

    settings = TrainSettings(task="unconditional", data=str(folder), hold_out=hold_out)
    config = {"settings": settings.to_dict(), "data_folder": str(folder)}
    model = SimpleNamespace(
        size=(8, 8),
        text_encoder="its encoder",
        checkpoint=SimpleNamespace(config=config, prediction=prediction),
        schedule=schedule,
        network=network,
        encode=lambda images: images / 2,
    )

    def encoded(encoder, prompts):
        assert encoder == "its encoder"
        return Condition(vector=torch.ones(len(prompts), 1))

    monkeypatch.setattr(script.tinyldm, "load", lambda run, device: model)
    monkeypatch.setattr(script, "encode_prompts", encoded)


@pytest.mark.parametrize(("path", "prediction"), PATHS)
def test_the_pictures_are_those_held_out(script, photos, monkeypatch, path, prediction):
    def black(x_t, level):
        return torch.full_like(x_t, -0.5)

    loaded(monkeypatch, script, photos, black, path, prediction)
    _, examples = read_examples(photos, task="unconditional", hold_out=0.25)
    apart = [from_bytes(to_bytes(resize(load_image(e.image), (8, 8)))) for e in examples.held_out]
    assert len(apart) == 3
    truth = (torch.stack(apart) / 2 + 0.5).square().mean().item()
    assert script.errors("runs/any") == pytest.approx([truth] * 6, rel=1e-3)


@pytest.mark.parametrize(("path", "prediction"), PATHS)
def test_the_noise_is_as_strong_as_the_table_says(script, photos, monkeypatch, path, prediction):
    """x_t / alpha is x0 + exp(-lambda) eps."""
    loaded(monkeypatch, script, photos, lambda x, level: x / level.alpha, path, prediction)
    noises = [
        torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)
    ]
    power = torch.stack(noises).square().mean().item()
    expected = [math.exp(-2 * lambda_) * power for lambda_ in (-3, -2, -1, 0, 1, 2)]
    assert script.errors("runs/any") == pytest.approx(expected, rel=1e-3)


def test_a_run_that_held_nothing_out_is_told_so(script, photos, monkeypatch):
    loaded(monkeypatch, script, photos, lambda x, level: x, "cosine", "v", hold_out=0.0)
    with pytest.raises(SystemExit, match="runs/any: was trained without --hold-out"):
        script.errors("runs/any")
