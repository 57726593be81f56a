"""What training leaves out: a share, whole monsters and scenes, nothing that is trained on."""

import json

import pytest
from PIL import Image

from tinyldm.errors import InputError
from tinyldm.scores.held_out import Split
from tinyldm.tasks.base import read_examples


def image_folder(folder, names):
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    lines = [json.dumps({"file_name": name, "text": name}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def monsters(folder):
    (folder / "train").mkdir()
    keys = [f"{monster}_{action}" for monster in range(30) for action in ("main", "hit1")]
    for key in keys:
        for frame in (0, 3):
            Image.new("RGB", (4, 4)).save(folder / "train" / f"{key}_{frame}.png")
    entry = {"given_description": ["a", "b"], "action_description": "c"}
    (folder / "train_info.json").write_text(json.dumps(dict.fromkeys(keys, entry)))


def labels(folder):
    (folder / "objects.json").write_text(json.dumps({"cube": 0}))
    names = [f"CLEVR_train_{scene:06d}_{view}.png" for scene in range(40) for view in range(3)]
    (folder / "train.json").write_text(json.dumps({name: ["cube"] for name in names}))
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)


@pytest.mark.parametrize(
    ("write", "whole"),
    [
        (monsters, lambda name: name.split("_")[0]),
        (labels, lambda name: name[:18]),
        (lambda folder: image_folder(folder, [f"photo_{k}.png" for k in range(60)]), str),
    ],
)
def test_a_share_is_left_out_whole(tmp_path, write, whole):
    write(tmp_path)
    task, everything = read_examples(tmp_path)
    same_task, examples = read_examples(tmp_path, hold_out=0.1)
    assert everything.held_out == ()
    assert sorted([*examples, *examples.held_out], key=str) == sorted(everything, key=str)
    assert len(examples.held_out) == len(everything) / 10
    assert not {whole(e.name) for e in examples} & {whole(e.name) for e in examples.held_out}
    assert (same_task.name, examples.layout) == (task.name, everything.layout)
    assert read_examples(tmp_path, hold_out=0.1)[1].held_out == examples.held_out


def test_too_much_or_too_little(tmp_path):
    image_folder(tmp_path, ["one.png"])
    with pytest.raises(
        InputError, match=r"--hold-out 0.1: .* has 1 images, too few to leave some out"
    ):
        read_examples(tmp_path, hold_out=0.1)
    for share in (-0.1, 0.9, float("nan")):
        with pytest.raises(InputError, match=r"--hold-out .*: expected a share from 0 to 0.5"):
            read_examples(tmp_path, hold_out=share)


def test_so_many_are_spread(tmp_path):
    image_folder(tmp_path, [f"{k:02d}.png" for k in range(40)])
    _, examples = read_examples(tmp_path, hold_out=0.25)
    split = Split.of_held_out(examples, tmp_path, 5)
    assert [prompt.text for prompt in split.prompts] == [
        "00.png",
        "08.png",
        "16.png",
        "24.png",
        "32.png",
    ]
    assert [image.name for image in split.images] == [prompt.text for prompt in split.prompts]
    assert not split.toys
    assert len(Split.of_held_out(examples, tmp_path, None).prompts) == 10
    (tmp_path / "mine.txt").write_text("\n".join("abcdefgh"))
    assert [prompt.text for prompt in Split.of_file(tmp_path / "mine.txt", 3).prompts] == [
        "a",
        "c",
        "e",
    ]
