"""docs/adapting.py and docs/adapting_iclevr.py: all of it in small, and scores that are known."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import SMALL_RUN

import train as train_script
from tinyldm.data.images import load_image
from tinyldm.nn.unet import UNetConfig
from tinyldm.scores import attributes
from tinyldm.scores.evaluator import Evaluator
from tinyldm.tasks.judges import LabelNet
from tinyldm.toy.monsters import write_toy
from tinyldm.training.checkpoint import find_checkpoint, read_config
from tinyldm.training.presets import PRESETS

ROOT = Path(__file__).parents[1]
SMALL = UNetConfig(channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4)
NAMES = tuple(
    f"{colour} {shape}" for shape in ("cube", "sphere", "cylinder") for colour in ("red", "blue")
)
PARTS = ("data", "train", "draw", "score", "figure")  # all but count


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder, where scripts of docs/ can be imported and networks are small."""
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "toy", SMALL)
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def adapting(place):
    return importlib.import_module("adapting")


@pytest.fixture
def of_iclevr(place):
    return importlib.import_module("adapting_iclevr")


def call(monkeypatch, module, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    module.main()


def learn(**given):
    """A base to adapt, runs/first, of two steps."""
    small = {**SMALL_RUN, "size": (64, 64), "vae": "tiny", "cfg_drop": 0.1, "preset": "toy"}
    train_script.train({**small, "out": "runs/first", **given})


def rows(said):
    """The rows that score() has printed, under what their titles begin with."""
    found, title = {}, ""
    for line in said.splitlines():
        if line.startswith("  "):
            found[title].append(line.split()[0])
        elif ":" in line:
            title = line.partition(":")[0]
            found[title] = []
    return {title: names for title, names in found.items() if names}


def check_drawings(prefix, count, *more):
    """The runs have drawn so many pictures with two seeds, and another picture with each."""
    for name in ("base", "grey", "control", "super", *more):
        drawn = [sorted(Path(f"samples/{prefix}{name}/{seed}").glob("*.png")) for seed in range(2)]
        assert [len(files) for files in drawn] == [count] * 2
        assert len({files[0].read_bytes() for files in drawn}) == 2


def is_grey(file):
    pixels = np.asarray(load_image(file))
    return bool((pixels.max(2) == pixels.min(2)).all())


def check_colours(on, prefix, values):
    """What was kept of the LoRAs says how grey their pictures are; values: that are shares."""
    for row in json.loads(Path("adapting.json").read_text()):
        name = row["row"].replace(" ", "-")
        if row["table"] == "LoRA" and "VAE" not in name:
            assert row["on"] == on
            files = sorted(Path(f"samples/{prefix}{name}").rglob("[0-9]*.png"))
            pixels = np.stack([np.asarray(load_image(file)).astype(float) for file in files])
            wanted = (pixels.max(3) - pixels.min(3)).mean()
            assert float(row["cells"]["channels"].split(" ± ")[0]) == pytest.approx(
                wanted, abs=1e-3
            )
            assert all(float(row["cells"][value].split(" ± ")[0]) <= 1 for value in values)


@pytest.mark.slow
def test_a_run_of_the_toy_set_is_adapted_in_small(adapting, monkeypatch, capsys):
    write_toy("data/toy", train_monsters=2)
    monkeypatch.setattr(adapting, "SEEDS", (0, 1))
    monkeypatch.setattr(attributes, "load_classifier", attributes.AttributeNet)  # not trained
    learn(data="data/toy", text_encoder="tiny")
    for part in PARTS:
        call(monkeypatch, adapting, "runs/first", part, "--trial")
    learned = sorted(Path("data/grey").glob("*.png"))
    assert len(learned) == 12
    assert all(is_grey(file) for file in learned)
    assert not all(is_grey(file) for file in Path("data/unseen").glob("*.png"))
    assert read_config(find_checkpoint("runs/grey"))["network"]["lora"]["rank"] == 4
    assert "controlnet" in read_config(find_checkpoint("runs/control"))["network"]
    check_drawings("", 4)
    assert rows(capsys.readouterr().out) == {
        "LoRA": ["base", "grey"],
        "outlines": ["base", "control", "VAE"],
        "super-resolution": ["bicubic", "super", "VAE"],
    }
    check_colours("toy set", "", ("colour", "eyes"))
    assert load_image("adapting.png").height == 8 * 132
    call(monkeypatch, adapting, "runs/first", "train", "--trial")
    assert capsys.readouterr().out == ""  # all of it is there already


# ---- i-CLEVR


@pytest.fixture
def scenes(place):
    """iclevr/, forty scenes of three pictures each, the second of which has most labels."""
    Path("iclevr/images").mkdir(parents=True)
    labels = {}
    for scene in range(40):
        shown = [NAMES[(scene + k) % len(NAMES)] for k in range(3)]
        for k, count in enumerate((1, 3, 2)):
            name = f"CLEVR_train_{scene:06d}_{k}.png"
            picture = Image.new("RGB", (64, 64), (120, 120, 120))
            picture.paste((200, 6 * scene, 80 * k), (20, 20, 40, 40))
            picture.save(f"iclevr/images/{name}")
            labels[name] = shown[:count]
    Path("iclevr/train.json").write_text(json.dumps(labels))
    Path("iclevr/objects.json").write_text(json.dumps({name: k for k, name in enumerate(NAMES)}))
    return labels


def test_no_picture_to_learn_from_is_of_a_scene_that_is_drawn(of_iclevr, scenes):
    known, apart = of_iclevr.split("iclevr")
    assert [example.name for example in apart] == [
        f"CLEVR_train_{scene:06d}_1.png" for scene in (0, 10, 20, 30)
    ]
    assert len(known) == 3 * 36
    assert {example.name[:18] for example in known}.isdisjoint(e.name[:18] for e in apart)


@pytest.mark.slow
def test_a_run_of_labels_is_adapted_in_small(adapting, of_iclevr, scenes, monkeypatch, capsys):
    monkeypatch.setattr(adapting, "SEEDS", (0, 1))
    learn(data="iclevr")
    Evaluator("labels", LabelNet(len(NAMES)), NAMES, (64, 64)).save(Path("judge"))
    given = ("--data", "iclevr", "--judge", "judge", "--trial")
    for part in PARTS:
        call(monkeypatch, of_iclevr, "runs/first", part, *given)
    assert all(is_grey(file) for file in Path("data/iclevr-grey/train").glob("*.png"))
    sketches = Path("data/iclevr-sketches.txt").read_text().splitlines()
    for k, scene in enumerate((0, 10, 20, 30)):
        name = f"CLEVR_train_{scene:06d}_1.png"
        assert sketches[k] == f"data/iclevr-unseen/{k:04d}.png | {', '.join(scenes[name])}"
        original = load_image(f"iclevr/images/{name}")
        assert load_image(f"data/iclevr-unseen/{k:04d}.png").tobytes() == original.tobytes()
    config = read_config(find_checkpoint("runs/iclevr-control"))
    assert config["condition"]["names"] == list(NAMES)
    assert config["network"]["controlnet"] == {"map_channels": 16}
    every = read_config(find_checkpoint("runs/iclevr-grey-all"))["network"]["lora"]["layers"]
    assert "conv_in" in every
    check_drawings("iclevr-", 4, "grey-all")
    assert rows(capsys.readouterr().out) == {
        "LoRA": ["base", "grey", "grey", "VAE", "grey"],
        "outlines": ["base", "control", "VAE"],
        "super-resolution": ["bicubic", "super", "VAE"],
    }
    check_colours("i-CLEVR", "iclevr-", ("shapes", "labels"))
    assert load_image("adapting_iclevr.png").height == 8 * 132


def test_shapes_are_right_whatever_their_colours(of_iclevr):
    """Four pictures: another colour, another shape, two shapes of which one is wrong, all three.

    The last asks for every shape, and says nothing.
    """
    asked = [["red cube"], ["red cube"], ["red cube", "red sphere"], [*NAMES[::2]]]
    seen = [["blue cube"], ["red sphere"], ["blue cube", "blue cylinder"], ["red cube"]]
    wanted, found = (
        torch.tensor([[name in labels for name in NAMES] for labels in each])
        for each in (asked, seen)
    )
    assert of_iclevr.right_shapes(found.float(), wanted, NAMES) == pytest.approx(1 / 3)


# ---- scores


def squares(*places):
    """Black squares of 8 pixels on white, where they begin."""
    picture = Image.new("RGB", (64, 64), "white")
    for x, y in places:
        picture.paste("black", (x, y, x + 8, y + 8))
    return picture


def test_outlines_agree_where_they_are_within_a_pixel(adapting):
    both, one = squares((8, 8), (40, 40)), squares((8, 8))
    assert adapting.agreement([one], [one]) == 1
    assert adapting.agreement([squares((9, 8))], [one]) == 1
    assert adapting.agreement([squares((40, 40), (8, 40))], [both]) == pytest.approx(1 / 2)
    assert adapting.agreement([one], [both]) == pytest.approx(2 / 3)  # all right, half of it


def test_the_fainter_outlines_count_from_a_lower_edge_on(adapting):
    faint = Image.new("RGB", (64, 64), (100, 100, 100))
    faint.paste((150, 150, 150), (16, 16, 32, 32))  # a step of 50, no more anywhere but at corners
    assert adapting.edges([faint], 64).sum() == 0
    assert adapting.edges([faint], 32).sum() > 60


def test_colour_and_likeness_are_those_of_pictures_that_are_known(adapting):
    assert adapting.colour([Image.new("RGB", (8, 8), (250, 50, 100))] * 2) == 200
    assert adapting.colour([adapting.grey(Image.new("RGB", (8, 8), (250, 50, 100)))]) == 0
    dark, light = (Image.new("RGB", (64, 64), (v, v, v)) for v in (51, 102))
    found = adapting.likeness([light], [dark])
    assert found["PSNR"] == pytest.approx(20 * np.log10(5))  # a fifth of the range
    assert found["PSNR, small again"] == pytest.approx(20 * np.log10(5))


def test_a_row_has_the_mean_and_the_deviation_over_seeds(adapting, capsys):
    adapting.row("LoRA", [[None] * n for n in (1, 2, 3)], lambda images: {"n": float(len(images))})
    adapting.row("VAE", [[None]], lambda images: {"n": 1.0, "m": 0.25})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["LoRA", "n", "2.000", "±", "1.000"],
        ["VAE", "n", "1.000;", "m", "0.250"],
    ]
