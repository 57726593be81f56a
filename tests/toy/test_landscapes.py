"""Procedural landscapes: exact maps, styles apart from shapes, the assignment's layout."""

import json

import numpy as np
import pytest
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.tasks.base import read_examples, read_requests
from tinyldm.tasks.segmentation import CLASSES
from tinyldm.toy import landscapes as scenery
from tinyldm.toy.landscapes import GROUND, TIMES, Style, draw, paint, shapes, write_landscapes


def test_many_classes_in_many_scenes():
    scenes = [draw(0, k, (48, 64))[1] for k in range(40)]
    shown = set(np.unique(np.stack(scenes)).tolist())
    assert len(shown) >= 8
    assert shown == {CLASSES.index(name) for name in GROUND}
    assert all(len(np.unique(scene)) >= 2 for scene in scenes)
    assert np.array_equal(scenes[3], draw(0, 3, (48, 64))[1])
    assert not np.array_equal(scenes[3], draw(1, 3, (48, 64))[1])


def test_the_map_is_that_of_the_picture(monkeypatch):
    """Without texture, haze and marks every class has one colour, which gives the map back."""
    flat = {name: ((20 * k, 255 - 20 * k, 7 * k),) * 4 + (0.0, 2) for k, name in enumerate(GROUND)}
    monkeypatch.setattr(scenery, "GROUND", flat)
    style = Style(np.random.default_rng(0))
    style.tint, style.haze, style.contrast, style.time = np.zeros((len(flat), 3)), 0.0, 1.0, "day"
    for k in range(10):
        rng = np.random.default_rng(k)
        scene, marks = shapes(rng, 40, 50)
        picture = paint(rng, scene, np.zeros_like(marks), style).astype(int)
        for name, (colour, *_) in flat.items():
            if name != "sky":  # it fades towards the horizon
                assert np.array_equal((picture == colour).all(2), scene == CLASSES.index(name))


def test_styles_change_colours_and_nothing_else():
    scene, marks = shapes(np.random.default_rng(0), 48, 64)
    styles = [Style(np.random.default_rng(k)) for k in range(30)]
    assert {style.season for style in styles} == {0, 1, 2, 3}
    assert {style.time for style in styles} == set(TIMES)
    means = np.stack(
        [paint(np.random.default_rng(1), scene, marks, style).mean((0, 1)) for style in styles]
    )
    apart = np.abs(means[:, None] - means).sum(2) + 99 * np.eye(30)
    assert apart.min() > 1


def test_the_set_has_the_layout_of_the_assignment(tmp_path, capsys):
    out = tmp_path / "land"
    command = ["landscapes", "--out", str(out), "--train", "12", "--test", "3", "--size", "32x24"]
    assert dispatch(COMMANDS, command) == 0
    task, examples = read_examples(out)
    requests = read_requests(out / "label_to_img.json")
    assert (len(examples), len(requests), task.name) == (12, 3, "landscape")
    for folder, suffix in (("train_resized/imgs", "jpg"), ("train_resized/labels", "png")):
        with Image.open(out / folder / f"00000.{suffix}") as image:
            assert image.size == (32, 24)
            assert image.mode == {"jpg": "RGB", "png": "L"}[suffix]
    pairs = json.loads((out / "label_to_img.json").read_text())
    shares = {k: scenery.shares(draw(0, k, (24, 32))[1]) for k in range(15)}
    for (
        scene,
        reference,
    ) in pairs.items():  # no training picture shows a more similar mix of classes
        distance = {k: np.abs(shares[k] - shares[int(scene[:5])]).sum() for k in range(12)}
        assert distance[int(reference[:5])] == min(distance.values())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kept.txt").write_text("mine")
    for arguments, told in (
        (command[2:], "not empty"),
        ([str(tmp_path / "mine"), "--overwrite"], "not empty"),
        ([str(tmp_path / "new"), "--size", "8"], "16x16"),
        ([str(tmp_path / "new"), "--seed", "-1"], "--seed -1: expected"),
    ):
        assert dispatch(COMMANDS, [*command[:2], *arguments]) == 2
        assert told in capsys.readouterr().err
    assert dispatch(COMMANDS, [*command, "--overwrite"]) == 0
    (out / ".tinyldm.json").unlink()
    (out / "val_B_imgs").rename(tmp_path / "away")  # now it could be the assignment itself
    assert dispatch(COMMANDS, [*command, "--overwrite"]) == 2
    assert (out / "label_to_img.json").is_file()


def test_an_interrupted_set_leaves_nothing_behind(tmp_path, monkeypatch):
    """Neither half of a set nor, with --overwrite, the loss of the one before."""
    write_landscapes(tmp_path / "land", 2, 1, (24, 32))
    before = (tmp_path / "land/train_resized/imgs/00000.jpg").read_bytes()
    once = iter([draw(9, 0, (24, 32))])

    def stopped(*arguments):
        for drawn in once:
            return drawn
        raise KeyboardInterrupt

    monkeypatch.setattr(scenery, "draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_landscapes(tmp_path / "land", 2, 1, (24, 32), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["land"]
    assert (tmp_path / "land/train_resized/imgs/00000.jpg").read_bytes() == before


def test_evaluate_scores_likeness_of_style(tmp_path):
    """References drawn again are perfectly like themselves, and less like the next one's."""
    out, drawn = tmp_path / "land", tmp_path / "drawn"
    scenery.write_landscapes(out, 12, 4, (24, 32))
    drawn.mkdir()
    for scene, reference in json.loads((out / "label_to_img.json").read_text()).items():
        (drawn / f"{scene[:5]}.jpg").write_bytes(
            (out / "train_resized/imgs" / reference).read_bytes()
        )
    command = [
        "evaluate",
        str(drawn),
        "--prompts",
        str(out / "label_to_img.json"),
        "--out",
        str(tmp_path / "s.json"),
    ]
    assert dispatch(COMMANDS, command) == 0
    found = json.loads((tmp_path / "s.json").read_text())["scores"]["style"]
    assert found["n"] == 4
    assert abs(found["value"] - 1) < 1e-9
    assert found["reference"]["another's"] < 0.9
