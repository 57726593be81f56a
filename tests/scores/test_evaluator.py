"""The judges: the assignment's rule, a short training, what is saved; and likeness of colours."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import without_seal

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.data.examples import Example, Examples, Layout, held_out_subjects
from tinyldm.errors import InputError
from tinyldm.scores import evaluator
from tinyldm.scores.evaluator import Evaluator, disturb, find_judge, train_evaluator
from tinyldm.scores.similarity import style_likeness
from tinyldm.tasks.base import find_task
from tinyldm.tasks.judges import class_accuracy, exact_accuracy, top_k_accuracy
from tinyldm.tasks.labels import Labels
from tinyldm.toy.landscapes import write_landscapes

NAMES = {"red square": 0, "green square": 1, "blue square": 2}
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def test_the_assignments_rule_divides_sums():
    """One of three labels found in one image, one of one in another: 2 of 4, not (1/3 + 1) / 2."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 9.0, 8.0], [0.0, 5.0, 0.0, 0.0, 0.0]])
    wanted = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]).bool()
    assert top_k_accuracy(logits, wanted) == 2 / 4
    assert exact_accuracy(logits, wanted) == 1 / 2
    nothing = torch.zeros(2, 5).bool()
    assert top_k_accuracy(logits, nothing) == 0
    assert exact_accuracy(logits, nothing) == 1


def test_the_rule_equals_counting_sets():
    rng = np.random.default_rng(0)
    logits, found, total = rng.normal(size=(50, 24)), 0, 0
    wanted = np.zeros((50, 24), bool)
    for row in range(50):
        labels = rng.choice(24, rng.integers(1, 4), replace=False)
        wanted[row, labels] = True
        found += len(set(np.argsort(-logits[row])[: len(labels)]) & set(labels))
        total += len(labels)
    assert top_k_accuracy(torch.from_numpy(logits), torch.from_numpy(wanted)) == found / total


def test_pixels_are_counted():
    maps = torch.tensor([[[0, 1], [2, 1]]], dtype=torch.uint8)
    logits = (
        torch.nn.functional.one_hot(torch.tensor([[[0, 1], [1, 1]]]), 3).permute(0, 3, 1, 2).float()
    )
    assert class_accuracy(logits, maps) == 3 / 4


def split(names, layout=""):
    """Which images are held out, where the layout of a folder has that name."""
    layouts = [each for task in ("text", "labels") for each in find_task(task).layouts]
    scenes = {each.name: each.subject for each in layouts}
    return torch.tensor(held_out_subjects(names, scenes.get(layout)))


def test_images_of_a_scene_are_held_out_together():
    names = [f"CLEVR_train_{scene:06d}_{k}.png" for scene in range(50) for k in range(3)]
    held = split(names, "labels").view(50, 3)
    assert torch.equal(held.all(1), held.any(1))
    assert held[:, 0].sum() == 5


def test_monsters_are_held_out_with_all_their_actions():
    names = [
        f"{monster}_{action}_{k}.png"
        for monster in range(30)
        for action in ("idle", "attack")
        for k in (0, 3)
    ]
    held = split(names, "monsters").view(30, 4)
    assert torch.equal(held.all(1), held.any(1))
    assert held[:, 0].sum() == 3


@pytest.mark.parametrize("layout", ["", "labels", "imagefolder"])
def test_numbered_photos_are_no_scene(layout):
    """Neither are all cats one thing to be held out, nor all photos."""
    held = split([f"{name}_{k}.png" for name in ("cat", "dog") for k in range(20)], layout).view(
        2, 20
    )
    assert held.sum(1).tolist() == [2, 2]


def test_maps_are_moved_with_their_images():
    maps = torch.randint(5, (8, 12, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = (maps[:, None].repeat(1, 3, 1, 1) / 2 - 1).float()
    seen = set()
    for seed in range(20):
        moved, after = disturb(images, maps, torch.Generator().manual_seed(seed))
        assert (
            torch.corrcoef(torch.stack([moved[:, 0].flatten(), after.flatten().float()]))[0, 1]
            > 0.8
        )
        seen.add(tuple(after.flatten().tolist()))
    assert len(seen) > 5


@pytest.fixture
def data(tmp_path):
    """Sixty scenes with one to three coloured squares, in i-CLEVR's layout."""
    folder, rng, train = tmp_path / "squares", np.random.default_rng(0), {}
    (folder / "images").mkdir(parents=True)
    for k in range(60):
        labels = sorted(rng.choice(3, rng.integers(1, 4), replace=False).tolist())
        picture = np.full((24, 24, 3), 128, np.uint8)
        for place, label in zip(rng.permutation(4), labels, strict=False):
            top, left = 12 * (place // 2) + 2, 12 * (place % 2) + 2
            picture[top : top + 8, left : left + 8] = COLOURS[label]
        Image.fromarray(picture).save(folder / "images" / f"s_{k}_0.png")
        train[f"s_{k}_0.png"] = [list(NAMES)[label] for label in labels]
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "objects.json").write_text(json.dumps(NAMES))
    return folder


def test_the_command_trains_and_saves(data, tmp_path, capsys):
    command = [
        "evaluator",
        "train",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "judge"),
        "--size",
        "24",
    ]
    assert (
        dispatch(COMMANDS, [*command, "--steps", "80", "--batch-size", "16", "--lr", "0.01"]) == 0
    )
    assert "6 images held out: top-k" in capsys.readouterr().out
    judge = Evaluator.load(tmp_path / "judge")
    assert judge.names == tuple(NAMES)
    assert judge.size == (24, 24)
    assert judge.images == 6
    squares = torch.full((3, 3, 24, 24), 128, dtype=torch.uint8)
    for k, colour in enumerate(COLOURS):
        squares[k, :, 2:10, 2:10] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    assert judge.scores(squares, torch.eye(3).bool())["top-k"] == 1
    again = tmp_path / "again"
    judge.save(again)
    assert torch.equal(Evaluator.load(again).logits(squares), judge.logits(squares))
    assert Evaluator.load(again).version == judge.version
    new = [*command[:5], str(tmp_path / "new")]
    for wrong, told in (
        (command, "not empty"),
        ([*command, "--steps", "0", "--overwrite"], "--steps 0"),
        ([*new, "--lr", "nan"], "--lr nan"),
        ([*new, "--seed", str(2**63)], "--seed 9223372036854775808"),
    ):
        assert dispatch(COMMANDS, wrong) == 2
        assert told in capsys.readouterr().err
    for facts in (
        {},
        {"task": "labels"},
        {**json.loads((again / "config.json").read_text()), "more": 1},
    ):
        (again / "config.json").write_text(json.dumps(facts))
        with pytest.raises(InputError, match="not an evaluator"):
            Evaluator.load(again)
    asked = [Labels(("blue square", "red square"))]
    assert judge.judge.truth(asked, (1, 1), None).tolist() == [[True, False, True]]


def test_a_full_disk_loses_nothing_that_was_there(tmp_path, monkeypatch):
    """The weights are written and the config is not: the old weights stay with the old config."""
    net = find_judge("labels", ("a", "b")).network(2)
    Evaluator("labels", net, ("a", "b"), (8, 8)).save(tmp_path / "judge")
    before = {file.name: file.read_bytes() for file in (tmp_path / "judge").iterdir()}

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    net = find_judge("labels", ("a", "b", "c")).network(3)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        Evaluator("labels", net, ("a", "b", "c"), (8, 8)).save(tmp_path / "judge")
    assert caught.value.filename == str(tmp_path / "judge")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "judge").iterdir()}


def test_what_it_is_measured_on_is_not_trained_on(tmp_path, monkeypatch):
    """Forty pictures, each of a grey of its own."""
    for k in range(40):
        Image.new("RGB", (8, 8), (5 * k,) * 3).save(tmp_path / f"{k:02d}.png")
    items = tuple(Example(file, (Labels(("a",)),)) for file in sorted(tmp_path.glob("*.png")))
    layout = Layout("greys", "pictures of one grey each", Path.is_dir, lambda *_: [])
    examples = Examples(items, layout, tmp_path, names=("a", "b"))
    shown, measured = set(), set()

    def watched(images, truth, generator):
        shown.update((images[:, 0, 0, 0] * 127.5 + 127.5).round().int().tolist())
        return images, truth

    monkeypatch.setattr(evaluator, "disturb", watched)
    monkeypatch.setattr(
        Evaluator,
        "scores",
        lambda self, images, truth: measured.update(images[:, 0, 0, 0].tolist()),
    )
    evaluator.train_evaluator("labels", examples, (8, 8), steps=12, batch_size=32)
    assert len(measured) == 4
    assert not shown & measured
    assert len(shown) == 36


def test_broken_images_may_be_left_out_and_folders_are_tried_first(data, tmp_path, capsys):
    (data / "images" / "s_7_0.png").write_bytes(b"no")
    command = [
        "evaluator",
        "train",
        "--data",
        str(data),
        "--size",
        "24",
        "--steps",
        "1",
        "--batch-size",
        "2",
    ]
    for arguments, told in (
        ([str(tmp_path / "judge")], "s_7_0.png: not an image"),
        ([str(data / "train.json" / "judge"), "--skip-bad"], "train.json/judge: Not a directory"),
    ):
        assert dispatch(COMMANDS, [*command, "--out", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert "step" not in error
    assert dispatch(COMMANDS, [*command, "--skip-bad", "--out", str(tmp_path / "judge")]) == 0
    assert "left out: 1 images, first" in capsys.readouterr().out


def test_maps_that_do_not_fit_their_images_are_refused_or_left_out(tmp_path, capsys):
    write_landscapes(tmp_path / "land", 12, 1, (24, 32))
    labels = tmp_path / "land/train_resized/labels"
    Image.fromarray(np.zeros((20, 32), np.uint8)).save(labels / "00003.png")
    command = [
        "evaluator",
        "train",
        "--data",
        str(tmp_path / "land"),
        "--size",
        "16",
        "--steps",
        "1",
        "--batch-size",
        "2",
    ]
    assert dispatch(COMMANDS, [*command, "--out", str(tmp_path / "judge")]) == 2
    assert "00003.png: is 32x20, but its image 00003.jpg is 32x24" in capsys.readouterr().err
    Image.fromarray(np.full((24, 32), 29, np.uint8)).save(labels / "00005.png")
    assert dispatch(COMMANDS, [*command, "--skip-bad", "--out", str(tmp_path / "judge")]) == 0
    assert "left out: 2 images, first" in capsys.readouterr().out


def test_likeness_is_a_matter_of_colours_alone():
    rng = torch.Generator().manual_seed(0)
    a = torch.randint(256, (3, 20, 30), dtype=torch.uint8, generator=rng)
    order = torch.randperm(600, generator=rng)
    for same in (
        a,
        a.flatten(1)[:, order].view(3, 30, 20),
        a.repeat(1, 2, 1),
    ):  # nor is the number of pixels
        assert style_likeness(a, same) == pytest.approx(1)
    dark, bright = a // 16, 255 - a // 16
    assert style_likeness(dark, bright) < 0.01 < style_likeness(dark, dark // 2 + 2)


def test_evaluate_scores_labels(data, tmp_path, capsys):
    """Real pictures, under the names of the prompts, are what was asked for; others are not."""
    train = json.loads((data / "train.json").read_text())
    drawn, wrong = tmp_path / "drawn", tmp_path / "wrong"
    for folder in (drawn, wrong):
        folder.mkdir()
    for k, (name, labels) in enumerate(train.items()):
        (drawn / f"{k}.png").write_bytes((data / "images" / name).read_bytes())
        others = [n for n, o in train.items() if len(o) == len(labels) and set(o) != set(labels)]
        other = others[0] if others else name  # all three labels
        (wrong / f"{k}.png").write_bytes((data / "images" / other).read_bytes())
    (tmp_path / "test.json").write_text(json.dumps(list(train.values())))
    judge = tmp_path / "judge"
    trained = [
        "evaluator",
        "train",
        "--data",
        str(data),
        "--out",
        str(judge),
        "--size",
        "24",
        "--lr",
        "0.01",
    ]
    assert dispatch(COMMANDS, [*trained, "--steps", "80", "--batch-size", "16"]) == 0
    evaluate = ["--prompts", str(tmp_path / "test.json"), "--evaluator", str(judge)]
    scores = {}
    for folder in (drawn, wrong):
        out = tmp_path / f"{folder.name}.json"
        assert dispatch(COMMANDS, ["evaluate", str(folder), *evaluate, "--out", str(out)]) == 0
        scores[folder.name] = json.loads(out.read_text())["scores"]["evaluator"]
    assert scores["drawn"]["value"] > 0.95
    assert scores["wrong"]["value"] < scores["drawn"]["value"] - 0.1
    assert scores["drawn"]["n"] == 60
    assert scores["drawn"]["6 real images, held out"]["top-k"] > 0.9
    capsys.readouterr()
    assert dispatch(COMMANDS, ["evaluate", str(drawn), "--evaluator", str(judge)]) == 2
    assert "and --prompts FILE" in capsys.readouterr().err


def test_a_batch_of_one_has_no_statistics(tmp_path):
    """Batch norm needs two images; said before any training."""
    with pytest.raises(InputError, match="--batch-size 1: expected 2 or more"):
        train_evaluator("labels", SimpleNamespace(names=("a", "b")), (8, 8), batch_size=1)


def test_an_evaluator_of_an_unknown_task_is_named(tmp_path):
    names = ("red cube", "blue cube")
    Evaluator("labels", find_judge("labels", names).network(2), names, (8, 8)).save(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(without_seal(file) | {"task": "lab"}))
    with pytest.raises(InputError, match=r"config\.json: --task lab: expected"):
        Evaluator.load(tmp_path)


def test_a_bit_that_has_flipped_in_an_evaluator_is_noticed(tmp_path):
    """Though all values are finite; one without a hash, as the first were written, is taken."""
    names = ("red cube", "blue cube")
    Evaluator("labels", find_judge("labels", names).network(2), names, (8, 8)).save(tmp_path)
    Evaluator.load(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-12] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        Evaluator.load(tmp_path)
    config = without_seal(tmp_path / "config.json")
    del config["hash"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    Evaluator.load(tmp_path)
