"""The toy monsters and the set that is written from them."""

import json
from random import Random

import numpy as np
import pytest
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.errors import InputError
from tinyldm.toy import monsters as toy

MONSTER = toy.Monster("green", "round", "horns", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("set") / "toy", train_monsters=6)


def test_same_seed_same_drawing_other_seed_another():
    first, again, other = (np.asarray(toy.draw(MONSTER, "jump", seed)) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_every_action_and_attribute_changes_the_drawing():
    variants = [toy.draw(MONSTER, action, 0) for action in toy.ACTIONS]
    for change in ({"colour": "blue"}, {"shape": "square"}, {"feature": "crown"}, {"eyes": 3}):
        variants.append(toy.draw(toy.Monster(**{**vars(MONSTER), **change}), "main", 0))
    assert len({image.tobytes() for image in variants}) == len(variants)


@pytest.mark.parametrize("action", list(toy.ACTIONS))
def test_all_actions_but_moving_are_alike_in_a_mirror(action):
    mean = np.mean(
        [np.asarray(toy.draw(MONSTER, action, seed), float) / 255 for seed in range(24)], axis=0
    )
    assert (abs(mean - mean[:, ::-1]).mean() > 0.05) == (action == "move")
    assert (
        abs(mean - mean[::-1]).mean() > 0.05
    )  # a difference that is seen: upside down nothing is alike


@pytest.mark.parametrize("size", [32, 64, 256])
def test_drawing_is_a_picture_on_white(size):
    image = np.asarray(toy.draw(MONSTER, "main", 0, size))
    assert image.shape == (size, size, 3)
    assert (image[0] == 255).all()
    assert (image[size // 2, size // 2] != 255).any()


def test_colour_of_the_body_is_the_nearest_of_the_named_colours():
    names = list(toy.drawing.COLOURS)
    palette = np.array([toy.drawing.COLOURS[name] for name in names], float)
    for k, name in enumerate(names):
        pixels = np.asarray(
            toy.draw(toy.Monster(name, "square", "crown", 1), "main", k), float
        ).reshape(-1, 1, 3)
        distance = ((pixels - palette) ** 2).sum(-1)  # (pixels, colours)
        counts = np.bincount(distance.argmin(1)[distance.min(1) < 900], minlength=len(names))
        assert names[counts.argmax()] == name


def test_unknown_values_are_named():
    with pytest.raises(ValueError, match="colour 'white'"):
        toy.Monster("white", "round", "horns", 2)
    with pytest.raises(ValueError, match="action 'sleep'"):
        toy.draw(MONSTER, "sleep")


def test_full_descriptions_tell_every_attribute_apart():
    known, unknown = toy.monsters()
    said = {}
    for monster in known + unknown:
        for k in range(3):
            said.setdefault(toy.describe(monster, Random(k)), monster)
            assert said[toy.describe(monster, Random(k))] == monster


def test_held_out_monsters_are_in_no_training_caption():
    known, unknown = toy.monsters()
    assert len(known) + len(unknown) == 720
    assert not set(known) & set(unknown)
    trained = {
        text
        for k, monster in enumerate(known)
        for text in toy.descriptions(monster, Random(f"0 train {k}"))
    }
    tested = [prompt["given_description"] for prompt, _ in toy.test_prompts(unknown, 0).values()]
    assert len(tested) == 200
    assert not trained & set(tested)
    for name, values in toy.ATTRIBUTES.items():  # and the test asks for every value
        assert {attributes[name] for _, attributes in toy.test_prompts(unknown, 0).values()} == set(
            values
        )


def test_the_written_set_has_the_format_of_the_assignment(folder):
    info = json.loads((folder / "train_info.json").read_text())
    assert len(info) == 6 * 8
    for key, entry in info.items():
        frames = list((folder / "train").glob(f"{key}_*.png"))
        assert len(frames) == entry["num_frames"] > 0
        assert len(entry["given_description"]) == 3
        assert entry["action_description"] == toy.ACTIONS[key.split("_")[1]]
    test = json.loads((folder / "test.json").read_text())
    assert json.loads((folder / "attributes.json").read_text()).keys() == test.keys()
    for key, entry in test.items():
        assert entry["image_name"] == f"{key}.png"
        assert (
            entry["text_prompt"]
            == (entry["given_description"] + " " + entry["action_description"]).strip()
        )
    assert {image.stem.rsplit("_", 1)[0] for image in (folder / "train").iterdir()} == set(info)


def test_some_files_are_transparent_and_look_the_same_on_white(folder):
    modes = set()
    for file in (folder / "train").iterdir():
        with Image.open(file) as image:
            modes.add(image.mode)
    assert modes == {"RGB", "RGBA"}
    image = toy.draw(MONSTER, "skill1", 0)
    hidden = toy.transparent(image)
    assert hidden.convert("RGB").getpixel((0, 0)) == (0, 0, 0)  # what a plain convert would show
    white = Image.new("RGBA", image.size, "white")
    assert Image.alpha_composite(white, hidden).convert("RGB").tobytes() == image.tobytes()


def test_writing_is_repeatable_whole_and_never_over_something(folder, tmp_path, monkeypatch):
    again = toy.write_toy(tmp_path / "again", train_monsters=6)
    for file in folder.rglob("*.*"):
        assert file.read_bytes() == (again / file.relative_to(folder)).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        toy.write_toy(again)
    monkeypatch.setattr(toy, "test_prompts", lambda *_: 1 / 0)  # interrupted before the end
    with pytest.raises(ZeroDivisionError):
        toy.write_toy(tmp_path / "broken", train_monsters=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["again"]


def test_random_images_come_with_their_attributes():
    images, labels = toy.random_monster_images(40, seed=1)
    assert images.shape == (40, 64, 64, 3)
    assert images.dtype == np.uint8
    assert labels.keys() == toy.ATTRIBUTES.keys()
    again, _ = toy.random_monster_images(40, seed=1)
    assert (images == again).all()


def test_the_command_writes_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        toy, "monsters", lambda: ([MONSTER], [toy.Monster("red", "square", "tail", 1)])
    )
    command = ["toy", "draw", "--out", str(tmp_path / "set")]
    assert dispatch(COMMANDS, command) == 0
    assert (tmp_path / "set" / "test.json").is_file()
    assert dispatch(COMMANDS, command) == 2
    assert "exists already" in capsys.readouterr().err
    assert dispatch(COMMANDS, [*command, "--overwrite"]) == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train_info.json").touch()
    assert (
        dispatch(COMMANDS, ["toy", "draw", "--out", str(tmp_path / "photos"), "--overwrite"]) == 2
    )
    assert (tmp_path / "photos" / "train_info.json").exists()


def test_two_processes_may_ask_at_once(tmp_path, monkeypatch):
    calls = []

    def slower(folder):
        calls.append(folder)
        (folder / "train").mkdir(parents=True)  # the other process, meanwhile
        raise FileExistsError(folder)

    monkeypatch.setattr(toy, "write_toy", slower)
    assert toy.ensure_toy(tmp_path / "set") == toy.ensure_toy(tmp_path / "set") == tmp_path / "set"
    assert len(calls) == 1
