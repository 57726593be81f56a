"""The assignment's features and pytorch-fid's, on random weights in the published layouts.

What needs torchvision, the extra eval, is skipped where that is not installed.
"""

import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tinyldm.errors import InputError
from tinyldm.scores.inception import (
    KINDS,
    _read,
    load_inception,
    prepare_as_tensor,
    prepare_by_pillow,
)

SIZES = [(256, 256), (64, 64), (299, 299), (400, 310)]


def noise(width, height, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of random weights in the published layouts: 1000 classes and 2 heads, 1008 and 1."""
    models = pytest.importorskip("torchvision.models")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for kind, extra in {
        "torchvision": {},
        "pytorch-fid": dict(num_classes=1008, aux_logits=False),
    }.items():
        net = models.inception_v3(weights=None, init_weights=False, **extra)
        for module in (
            net.modules()
        ):  # so that activations neither die nor grow, and differ from picture to picture
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        torch.save(net.state_dict(), folder / f"{kind}.pth")
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_the_assignments_preprocessing(size):
    transforms = pytest.importorskip("torchvision.transforms")
    theirs = transforms.Compose(
        [
            transforms.Resize((299, 299)),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    torch.testing.assert_close(
        prepare_by_pillow(noise(*size)), theirs(noise(*size)), rtol=0, atol=1e-6
    )


def test_both_keep_flat_colours():
    """Red is 1, 0, 0: on [-1, 1] 1, -1, -1, whatever the size."""
    for prepare in (prepare_by_pillow, prepare_as_tensor):
        x = prepare(Image.new("RGB", (64, 48), "red"))
        assert x.shape == (3, 299, 299)
        torch.testing.assert_close(x.amin((1, 2)), torch.tensor([1.0, -1, -1]))
        torch.testing.assert_close(x.amax((1, 2)), torch.tensor([1.0, -1, -1]))


def features(extractor, images):
    with torch.inference_mode():
        return extractor.embed(torch.stack([extractor.prepare(image) for image in images]))


def test_the_assignments_network(weights):
    """torchvision's own network without its last layer."""
    models = pytest.importorskip("torchvision.models")
    theirs = models.inception_v3(weights=None, init_weights=False, transform_input=False)
    theirs.load_state_dict(torch.load(weights / "torchvision.pth", weights_only=True))
    theirs.fc = torch.nn.Identity()
    extractor, images = (
        load_inception("torchvision", weights / "torchvision.pth"),
        [noise(64, 64, k) for k in range(2)],
    )
    with torch.inference_mode():
        expected = theirs.eval()(torch.stack([prepare_by_pillow(image) for image in images]))
    found = features(extractor, images)
    assert found.shape == (2, 2048)
    assert found[0].std() > 1e-3
    assert not torch.allclose(found[0], found[1])
    torch.testing.assert_close(found, expected)


def test_pytorch_fids_network(weights, monkeypatch):
    theirs = pytest.importorskip("pytorch_fid.inception")
    tensors = torch.load(weights / "pytorch-fid.pth", weights_only=True)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *a, **k: tensors)
    net, images = theirs.InceptionV3().eval(), [noise(64, 64, k) for k in range(2)]
    with torch.inference_mode():
        pixels = torch.stack(
            [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images]
        )
        expected = net(pixels)[0][:, :, 0, 0]
    found = features(load_inception("pytorch-fid", weights / "pytorch-fid.pth"), images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    models = pytest.importorskip("torchvision.models")  # whose own pools give something else
    other = models.inception_v3(
        weights=None, init_weights=False, num_classes=1008, aux_logits=False
    )
    other.load_state_dict(tensors)
    other.fc = torch.nn.Identity()
    with torch.inference_mode():
        plain = other.eval()(torch.stack([prepare_as_tensor(image) for image in images]))
    assert (plain - expected).abs().max() > 0.01 * expected.abs().max()


class Normalising(torch.nn.Module):
    """A network that answers otherwise in training: by its batch, and at random."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(torch.nn.functional.dropout(self.norm(x).mean((2, 3)), 0.5, self.training))


def test_pitfall_22_extractors_are_in_eval_mode(tmp_path, monkeypatch):
    """What a picture gives does not depend on the rest of its batch."""
    torch.save(Normalising().state_dict(), tmp_path / "w.pth")
    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, replace(KINDS[kind], build=Normalising))
        extractor = load_inception(kind, tmp_path / "w.pth")
        a, b = noise(64, 64), Image.new("RGB", (64, 64), "red")
        torch.testing.assert_close(
            features(extractor, [a, b]), torch.cat([features(extractor, [x]) for x in (a, b)])
        )


def test_weights_from_the_cache_of_torch_hub(weights, tmp_path, monkeypatch):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = KINDS["torchvision"].url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints" / name).write_bytes(
        (weights / "torchvision.pth").read_bytes()
    )
    by_name = load_inception("torchvision", weights / "torchvision.pth")
    assert load_inception("torchvision").name == by_name.name
    assert "torchvision" in by_name.name
    save_file(
        torch.load(weights / "torchvision.pth", weights_only=True), tmp_path / "w.safetensors"
    )
    assert load_inception("torchvision", tmp_path / "w.safetensors").name == by_name.name


def test_weights_that_do_not_fit_are_named(weights, tmp_path):
    with pytest.raises(
        InputError, match=r"pytorch-fid.pth: not the weights of torchvision's Inception"
    ):
        load_inception("torchvision", weights / "pytorch-fid.pth")
    with pytest.raises(
        InputError, match=r"torchvision.pth: not the weights of pytorch-fid's Inception"
    ):
        load_inception("pytorch-fid", weights / "torchvision.pth")
    torch.save({"a": Image.new}, tmp_path / "code.pth")  # a pickle that would import
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for name in ("code.pth", "broken.pth"):
        with pytest.raises(
            InputError, match=f"{name}: not a file of weights that can be read"
        ) as caught:
            load_inception("torchvision", tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"nowhere.pth: no such file of weights"):
        load_inception("torchvision", tmp_path / "nowhere.pth")


def test_weights_that_cannot_be_fetched(weights, tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(
        InputError, match=r"inception_v3_google-0cc3c7bd.pth: no such file.*--inception FILE"
    ):
        load_inception("torchvision")


def test_without_torchvision_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for kind in KINDS:
        with pytest.raises(
            InputError, match=r"FID needs torchvision .*pip install 'tinyldm\[eval\]'"
        ):
            load_inception(kind)


class Evil:
    """A pickle that makes a file when it runs."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_is_refused_without_advice_to_run_it(tmp_path, monkeypatch, recwarn):
    """Nor are there lines of torch beside ours."""
    monkeypatch.chdir(tmp_path)
    files = {"plain": pickle.dumps(Evil()), "empty": b"", "text": b"hello", "zip": b"PK\3\4"}
    for name, content in files.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    torch.save({"w": Evil()}, tmp_path / "torch.pth")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match=f"{file.name}: not a file of weights") as caught:
            _read(file)
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert not recwarn.list
