"""Files of weights: what is written comes back, what does not fit is named."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tinyldm.errors import InputError
from tinyldm.weights import load_into, read_weights, weights_hash, write_weights


def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_what_is_written_comes_back_in_every_dtype(tmp_path):
    weights = {
        "half": torch.arange(4.0).half(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "turned": torch.arange(6.0).view(2, 3).T,
        "number": torch.tensor(7),
    }
    write_weights(tmp_path / "w.safetensors", weights)
    again = read_weights(tmp_path / "w.safetensors")
    assert again.keys() == weights.keys()
    for name, weight in weights.items():
        assert again[name].dtype == weight.dtype
        assert torch.equal(again[name], weight)
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_module_comes_back(tmp_path):
    file = tmp_path / "w.safetensors"
    write_weights(file, layer().state_dict())
    copied = nn.Linear(3, 2).half()
    load_into(copied, read_weights(file, copied.state_dict()), file)
    assert copied.weight.dtype == torch.float16  # the module's own
    torch.testing.assert_close(copied.weight.float(), layer().weight, rtol=1e-3, atol=1e-3)
    with torch.device("meta"):
        taken = nn.Linear(3, 2)
    load_into(taken, read_weights(file, taken.state_dict()), file)
    assert torch.equal(taken.weight, layer().weight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda w: w.pop("bias"),
            "does not fit its config: missing bias$",
        ),
        (
            lambda w: w.update(extra=torch.zeros(1)),
            "does not fit its config: unexpected extra$",
        ),
        (
            lambda w: w.update(bias=torch.zeros(3)),
            r"does not fit its config: bias has shape \(3,\), expected \(2,\)$",
        ),
        (
            lambda w: w.update({f"extra{k}": torch.zeros(1) for k in range(6)}),
            "unexpected extra3 and 2 more$",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, told):
    file, weights = tmp_path / "w.safetensors", layer().state_dict()
    change(weights)
    save_file(weights, file)
    with pytest.raises(InputError, match=told) as caught:
        read_weights(file, layer().state_dict())
    assert str(caught.value).startswith(str(file))
    module = layer()
    with pytest.raises(InputError, match=told):
        load_into(module, read_weights(file), file)
    assert torch.equal(module.weight, layer().weight)  # nothing was loaded


def test_names_of_today(tmp_path):
    def rename(name, weight):
        return name.replace("kernel", "weight"), weight.T

    file = tmp_path / "w.safetensors"
    write_weights(file, {"kernel": torch.arange(6.0).view(3, 2)})
    read = read_weights(file, {"weight": torch.empty(2, 3)}, rename)
    assert torch.equal(read["weight"], torch.arange(6.0).view(3, 2).T)


def test_files_that_are_no_weights(tmp_path):
    file = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w\.safetensors: no such file of weights"):
        read_weights(file)
    file.write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"w\.safetensors: not a safetensors file"):
        read_weights(file)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    write_weights(file, {"a": torch.ones(2)})

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyldm.weights.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_weights(file, {"a": torch.zeros(2)})
    assert torch.equal(load_file(file)["a"], torch.ones(2))
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_the_hash_knows_names_values_and_what_else_is_told():
    weights = {"a": torch.ones(2), "b": torch.zeros(3)}
    reordered = {"b": torch.zeros(3), "a": torch.ones(2)}
    assert weights_hash(weights) == weights_hash(reordered)
    others = [
        weights_hash({"a": torch.ones(2), "c": torch.zeros(3)}),
        weights_hash({"a": torch.ones(2), "b": torch.full((3,), 1e-6)}),
        weights_hash(weights, {"width": 8}),
        weights_hash(weights, {"width": 9}),
    ]
    assert len({weights_hash(weights), *others}) == 5
