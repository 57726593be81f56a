"""The averages for post-hoc EMA: tracked, saved, and as they were after a resumed training."""

import shutil

import numpy as np
import pytest
import torch
from test_trainer import TINY, everything, trainer
from torch import nn

from tinyldm.errors import InputError
from tinyldm.methods.power_ema import gamma_of
from tinyldm.signals import StopRequest
from tinyldm.training.averages import PowerEMA, PowerEMAs, load_averaged
from tinyldm.training.checkpoint import checkpoints, find_checkpoint, read_config
from tinyldm.training.presets import PRESETS
from tinyldm.weights import read_weights, write_weights


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny-test", TINY)


def test_each_average_is_the_weighted_sum_of_all_weights():
    network, lengths = nn.Linear(3, 2), (0.05, 0.2)
    averages = PowerEMAs(network, lengths)
    seen = []
    for _ in range(60):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 3))
        averages.update(network)
        seen.append(network.weight.detach().double().clone())
    for average, sigma_rel in zip(averages.averages, lengths, strict=True):
        edges = (np.arange(61) / 60) ** (gamma_of(sigma_rel) + 1)
        expected = torch.tensordot(torch.tensor(np.diff(edges)), torch.stack(seen), 1)
        found = average.network.weight.double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_buffers_are_copied_and_the_start_is_forgotten():
    network = nn.BatchNorm1d(2)
    averages = PowerEMAs(network, (0.1,))
    with torch.no_grad():
        network.weight.fill_(7.0)
        network.running_mean.fill_(3.0)
    averages.update(network)
    state = averages.state()
    assert torch.equal(state["0.1/weight"], network.weight)
    assert torch.equal(state["0.1/running_mean"], network.running_mean)


def test_every_checkpoint_has_both_averages_and_nothing_else_changes(tmp_path):
    plain, kept = trainer(tmp_path / "plain"), trainer(tmp_path / "kept", post_hoc_ema=True)
    plain.fit()
    kept.fit()
    a, b = everything(plain), everything(kept)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not list((tmp_path / "plain").rglob("averages.safetensors"))
    assert "ema_lengths" not in read_config(find_checkpoint(tmp_path / "plain"))
    names = {f"{s}/{name}" for s in ("0.05", "0.1") for name in kept.network.state_dict()}
    for folder in checkpoints(tmp_path / "kept"):
        config = read_config(folder)
        assert config["ema_lengths"] == [0.05, 0.1]
        assert config["ema_updates"] == config["step"]
        assert "averages.safetensors" in config["checksums"]
        stored = read_weights(folder / "averages.safetensors")
        assert stored.keys() == names
        assert all(weight.dtype == torch.float32 for weight in stored.values())


def test_resuming_goes_on_with_the_averages_bit_for_bit(tmp_path):
    whole = trainer(tmp_path / "whole", post_hoc_ema=True)
    whole.fit()
    stop = StopRequest()

    def stop_at_three(_, file):
        stop.requested = file.name == "step-0000003.png"

    how = {"post_hoc_ema": True}
    trainer(tmp_path / "parts", sample_every=1, preview=stop_at_three, **how).fit(stop)
    second = trainer(tmp_path / "parts", **how)
    second.restore(find_checkpoint(tmp_path / "parts"))
    second.fit()
    a, b = whole.power_emas.state(), second.power_emas.state()
    assert len(a) > 50
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    for name in ("step-0000005", "step-0000010"):
        files = [tmp_path / run / "checkpoints" / name for run in ("whole", "parts")]
        first, other = ((file / "averages.safetensors").read_bytes() for file in files)
        assert first == other


@pytest.mark.parametrize("harm", ["missing", "damaged", "of another network"])
def test_a_run_whose_averages_are_lost_is_not_resumed(tmp_path, harm):
    first = trainer(tmp_path / "run", post_hoc_ema=True, max_steps=5)
    first.fit()
    file = find_checkpoint(tmp_path / "run") / "averages.safetensors"
    if harm == "missing":
        file.unlink()
    elif harm == "damaged":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        write_weights(file, PowerEMAs(nn.Linear(1, 1), (0.05, 0.1)).state())
    second = trainer(tmp_path / "run", post_hoc_ema=True)
    with pytest.raises(InputError, match=r"averages\.safetensors: "):
        second.restore(find_checkpoint(tmp_path / "run"))


def test_an_average_put_together_is_nearly_the_one_that_was_tracked(tmp_path, monkeypatch):
    """As a share of how far the two that were kept are apart; with fewer checkpoints, less so."""
    t = trainer(tmp_path, post_hoc_ema=True, max_steps=48, save_every=6, lr=3e-3)
    tracked, update = PowerEMA(t.network, 0.15), t.power_emas.update

    def update_both(network):
        update(network)
        tracked.update(network)

    monkeypatch.setattr(t.power_emas, "update", update_both)
    t.fit()
    short, long = t.power_emas.averages
    missed = []
    for count in (8, 4, 2):
        made = load_averaged(tmp_path, ema_length=0.15)
        left = checkpoints(tmp_path)
        assert list(made.synthesis.files) == [folder.name for folder in left]
        assert len(left) == count
        gap = apart(made.network, tracked.network)
        missed.append(gap / apart(short.network, long.network))
        for folder in left[::2]:
            shutil.rmtree(folder)
    assert missed[0] < missed[1] < missed[2]
    assert missed[0] < 0.02


def apart(a, b):
    """How far the weights of two networks are from each other."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return torch.cat([(p - q).flatten() for p, q in pairs]).norm().item()
