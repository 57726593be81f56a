"""docs/lost_labels.py, with a network that knows the pictures and a judge that knows the labels."""

import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tinyldm.condition import Condition
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes, to_pil
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.tasks.labels import LabelEncoder

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("blue cube", "red cube", "red sphere")


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("lost_labels")


@pytest.fixture
def data(tmp_path):
    """Nine grey pictures; picture k has k % 3 + 1 labels and the brightness 20 k."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    labels = {}
    for k in range(9):
        Image.new("RGB", (8, 8), (20 * k,) * 3).save(folder / "images" / f"{k}.png")
        labels[f"{k}.png"] = list(NAMES[: k % 3 + 1])
    (folder / "train.json").write_text(json.dumps(labels))
    (folder / "objects.json").write_text(json.dumps({name: k for k, name in enumerate(NAMES)}))
    return folder


class Judge:
    """Finds what the training set says of the picture that is nearest in brightness."""

    names = NAMES

    def logits(self, pictures):
        nearest = (pictures.float().mean((1, 2, 3)) / 20).round().long()
        # of those that are not there the last is the likeliest
        return (torch.arange(3) <= (nearest % 3)[:, None]) + torch.arange(3) / 10


def test_pictures_have_as_many_labels_as_asked_for(script, data):
    assert [e.name for e in script.chosen(data, 2, 3)] == ["1.png", "4.png", "7.png"]
    assert [e.name for e in script.chosen(data, 3, 2)] == ["2.png", "5.png"]
    assert script.chosen(data, 4, 2) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_network_that_knows_the_pictures_loses_nothing(script, data, monkeypatch, known):
    examples = script.chosen(data, 2, 3)
    schedule = NoiseSchedule("cosine")
    pictures = [from_bytes(to_bytes(resize(load_image(e.image), (8, 8)))) for e in examples]
    x0 = torch.stack(pictures)
    knows = x0 if known else torch.full_like(x0, -1)  # black, which is picture 0 with one label

    def network(x_t, t, condition):
        level = schedule.level(t.long()).like(x_t)
        clean = knows.repeat(len(x_t) // len(knows), 1, 1, 1)  # guidance asks for both at once
        eps = (x_t - level.alpha * clean) / level.sigma
        return level.alpha * eps - level.sigma * clean

    checkpoint = SimpleNamespace(prediction="v", null=Condition(vector=torch.zeros(1, 3)))
    model = SimpleNamespace(
        size=(8, 8),
        text_encoder=LabelEncoder(NAMES, "vector"),
        checkpoint=checkpoint,
        schedule=schedule,
        network=network,
        encode=lambda images: images,
        decode=lambda latents: [to_pil(image) for image in latents],
    )
    monkeypatch.setattr(script.tinyldm, "load", lambda run, device: model)
    vae, *begun = script.rows("runs/any", examples, Judge())
    assert vae == (None, 0.0, 1.0)
    levels = [row[0] for row in begun]
    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(schedule.lambda_(torch.tensor([999.0])).item())
    error = (knows - x0).square().mean().item()
    for _, found_error, share in begun:
        assert math.isclose(found_error, error, rel_tol=1e-3, abs_tol=1e-6)
        assert share == (1.0 if known else 0.5)
