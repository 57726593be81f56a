"""The script of the speed run takes its own options beside those of train.py."""

import importlib.util
from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "speedrun.py"


def test_options_of_training_are_passed_on(monkeypatch):
    monkeypatch.syspath_prepend(FILE.parent)
    spec = importlib.util.spec_from_file_location("speedrun", FILE)
    speedrun = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speedrun)
    words = ["--changed", "Muon", "--seeds", "0", "1", "--max-steps", "7", "--optimizer", "muon"]
    options, given = speedrun.arguments(words)
    assert (options.changed, options.seeds) == ("Muon", [0, 1])
    assert given["max_steps"] == 7
    assert given["optimizer"] == "muon"
