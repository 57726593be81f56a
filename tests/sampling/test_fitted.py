"""grids.json: what python -m tinyldm grid writes is what sample.py --spacing fitted draws with."""

import json
from pathlib import Path

import pytest
import test_drawing
import torch
from stand_ins import without_seal
from test_drawing import command

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.sampler import sample
from tinyldm.folders import written
from tinyldm.sampling.drawing import Painter
from tinyldm.training.run import RUN

run = test_drawing.run  # the fixture
FIT = ["grid", "runs/pets", "--count", "3", "--fine", "8", "--device", "cpu"]
DRAW = ["--spacing", "fitted", "--prompt", "a cat", "--device", "cpu", "--out", "out"]


def grids(*arguments):
    return dispatch(COMMANDS, [*FIT, *arguments], prog="python -m tinyldm")


@pytest.fixture
def file(run):
    return run / "checkpoints" / "step-0000007" / "grids.json"


KEPT = {}


@pytest.fixture
def fitted(file):
    """grids.json with a grid of three steps, which is the same for each copy of the run."""
    if not KEPT:
        assert grids("--steps", "3") == 0
        KEPT["grids.json"] = file.read_bytes()
    file.write_bytes(KEPT["grids.json"])
    return file


def test_a_fitted_grid_is_drawn_with(run, file, capsys, monkeypatch):
    assert grids("--steps", "3", "4") == 0
    assert capsys.readouterr().out.endswith(f"{file.relative_to(Path.cwd())}\n")
    content = json.loads(file.read_text())
    assert [grid["steps"] for grid in content["grids"]] == [3, 4]
    assert content["grids"][0]["how"]["solver"]["name"] == "DPMSolver"
    assert content["grids"][0]["how"]["guidance"] == 3.0
    assert file in set(written(run, RUN))  # train.py --overwrite may remove it

    seen = []
    monkeypatch.setattr("tinyldm.sampling.drawing.sample", spy(seen))
    assert command(*DRAW, "--steps", "3") == 0
    assert seen == [tuple(content["grids"][0]["timesteps"])]
    record = json.loads(Path("out/about/samples.json").read_text())
    assert record["timesteps"] == content["grids"][0]["timesteps"]
    assert command(*DRAW, "--steps", "3") == 0  # the same job again
    assert command(*DRAW, "--steps", "4") == 2  # another one


def spy(seen):
    def watched(*arguments, **options):
        seen.append(tuple(level.t for level in options["spacing"][:-1]))
        return sample(*arguments, **options)

    return watched


def test_grids_for_other_ways_stay_and_those_for_the_same_are_fitted_anew(run, file):
    assert grids("--steps", "2") == 0
    assert grids("--steps", "2", "3", "--guidance", "2") == 0
    assert grids("--steps", "2", "4") == 0
    kept = json.loads(file.read_text())["grids"]
    found = sorted((grid["how"]["guidance"], grid["steps"]) for grid in kept)
    assert found == [(2.0, 2), (2.0, 3), (3.0, 2), (3.0, 4)]


def test_the_error_is_that_of_the_pictures_it_was_fitted_to(run, file, monkeypatch):
    """The latents of the network's own sampler, against those of as many steps as --fine."""
    kept = {}
    monkeypatch.setattr("tinyldm.commands.grid.runs_of", keeping(kept))
    assert grids("--steps", "3") == 0
    (grid,) = json.loads(file.read_text())["grids"]
    runs, painter = kept["runs"], kept["painter"]
    levels = painter.schedule.levels(grid["timesteps"])
    few, many = (
        sample(
            painter.network,
            runs.noise.shape,
            painter.schedule,
            DPMSolver(2),
            8,
            condition=runs.condition,
            guidance=painter.guidance,
            spacing=spacing,
            noise=runs.noise,
        )
        for spacing in (levels, "trailing")
    )
    error = (few - many).square().mean((1, 2, 3)).sqrt().mean().item()
    assert grid["error"] == pytest.approx(error, rel=1e-4)


def keeping(kept):
    from tinyldm.commands.grid import runs_of

    def watched(painter: Painter, *arguments):
        kept.update(painter=painter, runs=runs_of(painter, *arguments))
        return kept["runs"]

    return watched


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--steps", "4"],
            "--steps 4: runs/pets/checkpoints/step-0000007/grids.json has grids of 3",
        ),
        (["--steps", "3", "--guidance", "4"], "is for guidance 3.0, not 4.0;"),
        (["--steps", "3", "--solver", "unipc"], "is for DPMSolver, not UniPC;"),
        (["--steps", "3", "--order", "3"], "is for order 2, not 3;"),
        (
            ["--steps", "3", "--guidance-interval", "0.1", "2"],
            "is for interval None, not [0.1, 2.0];",
        ),
    ],
)
def test_a_grid_for_something_else_is_refused(fitted, capsys, arguments, said):
    refused(capsys, said, *arguments)


def refused(capsys, said, *arguments):
    capsys.readouterr()
    assert command(*DRAW, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert "python -m tinyldm grid" in error or "grids.json: " in error
    assert not Path("out").exists()


def test_a_guide_is_part_of_what_a_grid_is_for(run, file, capsys):
    """By its content, wherever it lies; here the run guides itself."""
    guide = ["--guide", "runs/pets", "--guide-scale", "1.5"]
    assert grids("--steps", "3", *guide) == 0
    (grid,) = json.loads(file.read_text())["grids"]
    assert len(grid["how"]["guide"]) == 64
    assert grid["how"]["guide_scale"] == 1.5
    refused(capsys, "is for guidance 1.0, not 3.0, another guide,", "--steps", "3")
    assert command(*DRAW, "--steps", "3", *guide) == 0


def test_without_a_grid_or_with_that_of_another_checkpoint_none_is_used(run, file, capsys):
    refused(capsys, "has no grids.json; python -m tinyldm grid", "--steps", "3")
    assert grids("--steps", "3") == 0
    config = file.with_name("config.json")
    config.write_text(json.dumps(without_seal(config) | {"machine": "another"}))
    refused(capsys, "was fitted for another checkpoint", "--steps", "3")
    assert grids("--steps", "4") == 0  # fits anew, and drops what is of no use
    assert [grid["steps"] for grid in json.loads(file.read_text())["grids"]] == [4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(grids=3), "grids: expected"),
        (lambda c: c["grids"][0].update(steps=4), "expected 4 timesteps, found 3"),
        (lambda c: c["grids"][0].update(timesteps=[9, 8, 99.0]), "strictly decreasing"),
        (lambda c: c["grids"][0].update(timesteps=[1e6, 8, 9.0]), "strictly decreasing"),
        (lambda c: c["grids"][0].update(timesteps=[1e6, 8, 4.0]), "timesteps lie within"),
        (lambda c: c["grids"][0].update(timesteps=[9, 8, -4]), "greater than or equal to 0"),
        (lambda c: c["grids"][0].update(more=1), "unknown key 'more'"),
        (lambda c: c.pop("contents"), "says nothing of 'contents'"),
    ],
)
def test_a_damaged_file_is_one_line(fitted, capsys, change, said):
    content = json.loads(fitted.read_text())
    change(content)
    fitted.write_text(json.dumps(content))
    refused(capsys, said, "--steps", "3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "9"], "--steps 9: expected at most --fine 8"),
        (["--solver", "ddpm"], "--solver ddpm: adds noise"),
        (["--solver", "ddim", "--eta", "0.5"], "--solver ddim: adds noise"),
        (["--prompts", "nowhere.json"], "nowhere.json: no such file"),
        (["--order", "2", "--solver", "ddim"], "--order 2: ddim has no order"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(run, file, capsys, arguments, said):
    assert grids(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not file.exists()


def test_a_run_without_preview_prompts_takes_them_from_a_file(run, file, capsys):
    config = file.with_name("config.json")
    config.write_text(json.dumps(without_seal(config) | {"preview_prompts": []}))
    assert grids("--steps", "2") == 2
    assert "expected --prompts FILE" in capsys.readouterr().err
    Path("prompts.txt").write_text("a bird\n")
    assert grids("--steps", "2", "--prompts", "prompts.txt") == 0
    assert torch.isfinite(torch.tensor(json.loads(file.read_text())["grids"][0]["error"]))
