"""The attribute classifier learns to read toy monsters, also mirrored and blurred, and is kept."""

import pytest
import torch
import torch.nn.functional as F

from tinyldm.data.images import from_bytes
from tinyldm.scores import attributes
from tinyldm.scores.attributes import (
    AttributeNet,
    accuracy,
    disturb,
    drawings,
    load_classifier,
    train_classifier,
)
from tinyldm.toy.monsters import ATTRIBUTES


def test_accuracy_counts_what_is_right():
    read = {"eyes": torch.tensor([0, 1, 2, 2]), "colour": torch.tensor([1, 1, 1, 1])}
    assert accuracy(read, {"eyes": [0, 1, 2, 0], "colour": torch.ones(4)}) == {
        "eyes": 0.75,
        "colour": 1.0,
    }


def test_drawings_and_their_labels():
    images, labels = drawings(20, seed=3)
    assert images.shape == (20, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert labels.keys() == ATTRIBUTES.keys()
    assert all(v.shape == (20,) for v in labels.values())
    assert not torch.equal(images, drawings(20, seed=4)[0])


def test_disturbed_pictures_are_the_same_pictures():
    images = from_bytes(drawings(8, seed=0)[0])
    disturbed = disturb(images, torch.Generator().manual_seed(0))
    assert disturbed.shape == images.shape
    assert torch.isfinite(disturbed).all()
    pooled = F.avg_pool2d(torch.cat([images, images.flip(3)]), 8).flatten(1)
    found = torch.cdist(F.avg_pool2d(disturbed, 8).flatten(1), pooled).argmin(1) % 8
    assert found.tolist() == list(range(8))  # nearest to itself or to its mirror image


def test_reading_is_by_picture_and_of_any_size():
    net, images = AttributeNet().eval(), from_bytes(drawings(10, seed=0)[0])
    read = net.read(images)
    for name, values in ATTRIBUTES.items():
        assert read[name].shape == (10,)
        assert read[name].max() < len(values)
    parts = net.read(images, chunk=3)
    large = net.read(images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert all(
        torch.equal(read[name], parts[name]) and torch.equal(read[name], large[name])
        for name in read
    )


def test_a_trained_classifier_is_kept(tmp_path, monkeypatch):
    trained = []

    def train(device):
        trained.append(AttributeNet().eval())
        return trained[-1]

    monkeypatch.setattr(attributes, "train_classifier", train)
    first = load_classifier(folder=tmp_path)
    second = load_classifier(folder=tmp_path)
    assert len(trained) == 1
    assert not second.training
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    monkeypatch.setattr(attributes, "version", lambda: "other drawings")
    load_classifier(folder=tmp_path)
    assert len(trained) == 2


@pytest.mark.slow
def test_it_learns():
    net = train_classifier(steps=110, images=1500)
    images, labels = drawings(300, seed=9)
    right = accuracy(net.read(from_bytes(images)), labels)
    assert right["colour"] > 0.85
    assert right["action"] > 0.85
    assert min(right.values()) > 0.5
