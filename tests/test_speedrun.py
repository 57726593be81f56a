"""The scripts of the speed run: their options beside those of train.py, and one of the ideas."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyldm.condition import Condition

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def speedrun(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("speedrun")


def test_options_of_training_are_passed_on(speedrun):
    words = ["--changed", "Muon", "--seeds", "0", "1", "--max-steps", "7", "--optimizer", "muon"]
    options, given = speedrun.arguments(words)
    assert (options.changed, options.seeds) == ("Muon", [0, 1])
    assert given["max_steps"] == 7
    assert given["optimizer"] == "muon"


def test_only_an_idea_that_replaces_the_loss_is_refused_beside_loss_weights(speedrun, capsys):
    options, given = speedrun.arguments(["--idea", "growing", "--loss-weights", "even"])
    assert (options.idea, given["loss_weights"]) == (["growing"], "even")
    with pytest.raises(SystemExit):
        speedrun.arguments(["--idea", "dispersive", "--loss-weights", "even"])
    assert "--idea dispersive: expected no --loss-weights even with it" in capsys.readouterr().err
    _, given = speedrun.arguments(["--idea", "dispersive"])
    assert given["loss_weights"] == "plain"


@pytest.mark.parametrize("ideas", [["growing", "growing"], ["dispersive", "contrastive"]])
def test_ideas_that_do_not_go_together_are_refused(speedrun, ideas, capsys):
    with pytest.raises(SystemExit):
        speedrun.arguments(["--idea", *ideas])
    assert f"--idea {' '.join(ideas)}: expected each once" in capsys.readouterr().err


def test_a_growing_batch_is_half_a_batch_at_first(speedrun):
    x0, mask = torch.arange(8.0), torch.ones(8, 1, dtype=torch.bool)
    whole = Condition(tokens=torch.arange(8.0).view(8, 1, 1), mask=mask)
    trainer = SimpleNamespace(
        batch=lambda position: (x0, whole, "its generator"),
        progress=SimpleNamespace(step=0),
        settings=SimpleNamespace(max_steps=20),
    )
    speedrun.IDEAS["growing"](trainer, None)
    for step, size in ((0, 4), (8, 4), (9, 8), (19, 8)):
        trainer.progress.step = step
        x, condition, generator = trainer.batch(step)
        assert x.tolist() == condition.tokens.flatten().tolist() == list(range(size))
        assert len(condition.mask) == size
        assert generator == "its generator"
