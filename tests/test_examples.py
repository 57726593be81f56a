"""The scripts of docs/examples, shortened: they run, they learn, and each is shorter than forty lines."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from tinyldm import DDPM, Condition, DPMSolver, sample

FOLDER = Path(__file__).parent.parent / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_scripts_are_short(script):
    assert len(script.read_text().splitlines()) < 40


@pytest.mark.slow
def test_digits_are_learned(monkeypatch):
    """In place of scikit-learn's digits two patterns: what is drawn is nearer to one of them than chance would be."""
    two = np.zeros((2, 8, 8))
    two[0, :, 3:5], two[1, 3:5] = 16, 16
    stand_in = ModuleType("sklearn.datasets")
    stand_in.load_digits = lambda: SimpleNamespace(images=two.repeat(50, 0))
    with monkeypatch.context() as patch:  # while the script is imported, and no longer
        patch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
        patch.setitem(sys.modules, "sklearn.datasets", stand_in)
        digits = load("digits")
    patterns = torch.from_numpy(two).float()[:, None] / 8 - 1
    drawn = digits.draw(digits.train(patterns.repeat(50, 1, 1, 1), 120), 8)
    distances = (drawn[:, None] - patterns).abs().mean((2, 3, 4))
    assert drawn.abs().max() <= 1
    assert distances.min(1).values.mean() < 0.25
    assert len(set(distances.argmin(1).tolist())) == 2  # both are drawn


@pytest.mark.slow
def test_a_network_trained_elsewhere_is_sampled_with_fewer_calls():
    swap = load("swap_sampler")
    net = swap.train(600)
    for solver, steps in ((DDPM(), 1000), (DPMSolver(order=2), 30)):
        found = swap.draw(net, solver, steps, n=200)
        error = torch.cdist(found, swap.POINTS).min(1).values.mean()
        assert error < 0.35
        assert torch.cdist(found, swap.POINTS).argmin(1).unique().numel() == 8


@pytest.mark.slow
def test_a_palette_is_heeded():
    palette = load("palette")
    unet, asked = (
        palette.train(150),
        Condition(torch.tensor([[[0.9, -0.9, -0.9]] * 3, [[-0.9, -0.9, 0.9]] * 3])),
    )
    drawn = sample(
        unet, (2, 3, 12, 12), palette.SCHEDULE, DPMSolver(), steps=10, seeds=[0, 0], condition=asked
    )
    means = drawn.mean((2, 3))
    assert means[0, 0] > means[1, 0] + 0.5
    assert means[1, 2] > means[0, 2] + 0.5
    order = palette.flags(torch.rand(4, 3, 3))
    assert order.shape == (4, 3, 12, 12)
    assert torch.equal(order[:, :, 0], order[:, :, 11])
