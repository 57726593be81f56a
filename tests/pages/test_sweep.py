"""A sweep draws each setting once, goes on where it stopped, and finds the best of known scores."""

import json
from pathlib import Path

import pytest

from tinyldm.__main__ import COMMANDS
from tinyldm.jobs.cli import dispatch
from tinyldm.pages import sweep
from tinyldm.pages.sweep import ranked

KNOWN = {"clip-t": lambda g, n: g + n / 1000, "clip-fd": lambda g, n: (g - 2) ** 2 + 10 / n}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A run with two checkpoints; drawing notes what it is asked for, and scores are functions of the setting."""
    monkeypatch.chdir(tmp_path)
    for step in (10, 20):
        folder = tmp_path / "runs" / "a" / "checkpoints" / f"step-{step:07d}"
        folder.mkdir(parents=True)
        config = {"format": 1, "step": step, "settings": {"cfg_drop": 0.1, "data": "data"}}
        (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "data").mkdir()
    entries = {str(k): {"image_name": f"{k}.png", "text_prompt": f"prompt {k}"} for k in range(10)}
    (tmp_path / "data" / "test.json").write_text(json.dumps(entries))
    drawn = []

    def draw(checkpoint, prompts, folder, *, how, **more):
        drawn.append((checkpoint.name, how.guidance, how.steps, type(how.solver).__name__, len(prompts)))
        folder.mkdir(exist_ok=True)
        (folder / "how").write_text(f"{how.guidance} {how.steps}")

    def evaluate(folder, prompts, *, metrics, shared, **more):
        assert set(json.loads(Path(prompts).read_text()))
        g, n = map(float, (folder / "how").read_text().split())
        shared[("clip", (folder / "0.png",))] = shared["network"] = shared[("clip", (Path("real/0.png"),))] = 0
        assert len(shared) == 3  # the features of earlier settings are gone
        return {name: {"n": 10, "extractor": "x", "preprocessing": "y", "value": KNOWN[name](g, n)} for name in metrics}

    monkeypatch.setattr(sweep, "sample_images", draw)
    monkeypatch.setattr(sweep, "evaluate", evaluate)
    return drawn


def run(*arguments):
    return dispatch(COMMANDS, ["sweep", "--run", "runs/a", "--device", "cpu", *arguments])


GRID = ["--guidance", "1", "2", "3", "--steps", "5", "10", "--metrics", "clip-t", "clip-fd"]


def test_every_setting_is_drawn_once(world, capsys):
    assert run(*GRID, "--checkpoints", "all", "--solver", "dpm++", "ddim", "--count", "5") == 0
    assert len(world) == len(set(world)) == 2 * 3 * 2 * 2 and {d[-1] for d in world} == {5}
    assert run(*GRID, "--checkpoints", "10", "20", "--solver", "dpm++", "ddim", "--count", "5") == 0
    assert len(world) == 24  # nothing anew
    assert run(*GRID, "--steps", "5", "10", "20", "--count", "5") == 0  # a larger grid: the new column of one solver
    assert world[24:] == [("step-0000020", g, 20, "DPMSolver", 5) for g in (1, 2, 3)]
    result = json.loads(Path("runs/a/sweep/sweep.json").read_text())
    assert len(result["rows"]) == 27 and result["readers"]["clip-t"]["extractor"] == "x"
    capsys.readouterr()


def test_an_interrupted_sweep_goes_on(world, monkeypatch):
    draw = sweep.sample_images

    def interrupted(*arguments, **more):
        if len(world) == 2:
            raise KeyboardInterrupt
        return draw(*arguments, **more)

    monkeypatch.setattr(sweep, "sample_images", interrupted)
    assert run(*GRID) == 130 and len(world) == 2
    monkeypatch.setattr(sweep, "sample_images", draw)
    assert run(*GRID) == 0 and len(world) == len(set(world)) == 6


def test_a_checkpoint_that_was_trained_anew_is_drawn_anew(world):
    assert run(*GRID) == 0 and len(world) == 6
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace('"cfg_drop": 0.1', '"cfg_drop": 0.2'))
    assert run(*GRID) == 0 and len(world) == 12
    assert len(json.loads(Path("runs/a/sweep/sweep.json").read_text())["rows"]) == 6


def test_the_best_setting_is_said(world, capsys):
    """By distance alone guidance 2 with the most steps; by CLIP-T alone guidance 3."""
    assert run(*GRID[:-2], "clip-fd") == 0
    out = capsys.readouterr().out
    assert "sample.py --run runs/a/checkpoints/step-0000020 --prompts data/test.json" in out
    assert "--steps 10 --solver dpm++ --guidance 2 " in out
    assert run(*GRID[:-2], "clip-t", "--out", "other") == 0
    assert "--steps 10 --solver dpm++ --guidance 3" in capsys.readouterr().out
    page = Path("other/sweep.html").read_text()
    assert "clip-t against steps" in page and "<svg" in page and "guidance 3" in page
    assert run(*GRID, "--out", "both") == 0
    assert "clip-t against clip-fd, over guidance" in Path("both/sweep.html").read_text()


def test_ranks_are_means_over_the_metrics():
    rows = [{"checkpoint": "a", "guidance": g, "steps": n, "solver": "s", "scores": {"clip-t": t, "clip-fd": d}}
            for g, n, t, d in [(1, 5, 0.1, 9.0), (2, 5, 0.3, 1.0), (3, 5, 0.2, 1.0), (4, 1, 0.3, 1.0)]]
    found = ranked(rows, ["clip-t", "clip-fd"])
    assert [(row["guidance"], row["rank"]) for row in found] == [(4, 1.0), (2, 1.0), (3, 1.5), (1, 2.5)]


@pytest.mark.parametrize("arguments, said", [
    (["--checkpoints", "30"], "--checkpoints 30: runs/a has step-0000010, step-0000020"),
    (["--guidance", "-1"], "--guidance -1: expected 0 or more"), (["--steps", "0"], "--steps 0: expected 1 or more"),
    (["--count", "0"], "--count 0: expected 1"), (["--metrics", "beauty"], "--metrics beauty: expected some of fid"),
    (["--evaluator", "judge"], "a sweep with other evaluator"),
    (["--prompts", "nowhere.json"], "nowhere.json: no such file"), (["--count", "3"], "a sweep with other prompts"),
    (["--seed", "1"], "a sweep with other seed"), (["--metrics", "clip-t"], "a sweep with other metrics"),
])  # fmt: skip
def test_bad_input_leaves_the_sweep_alone(world, capsys, arguments, said):
    assert run(*GRID) == 0
    files = {file: file.read_bytes() for file in Path("runs/a/sweep").rglob("*.json")}
    capsys.readouterr()
    assert run(*(GRID if "--metrics" not in arguments else GRID[:-3]), *arguments) == 2
    assert said in capsys.readouterr().err
    assert files == {file: file.read_bytes() for file in Path("runs/a/sweep").rglob("*.json")} and len(world) == 6


def test_labels_need_a_judge(world, capsys):
    """CLIP-T is no metric of lists of labels."""
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace('"data": "data"', '"data": "data", "task": "labels"'))
    assert run() == 2 and "expected --evaluator FOLDER or --reference DIR" in capsys.readouterr().err
    assert run("--reference", "real", "--guidance", "1") == 0
    assert json.loads(Path("runs/a/sweep/sweep.json").read_text())["asked"]["metrics"] == ["clip-fd"]


def test_guidance_needs_a_null_condition(world, capsys):
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace("0.1", "0.0"))
    assert run(*GRID) == 2 and "--cfg-drop 0" in capsys.readouterr().err
    assert run("--guidance", "1", "--metrics", "clip-t") == 0
