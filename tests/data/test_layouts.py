"""The assignments' layouts as their public files have them, and what goes wrong with each."""

import csv
import json

import pytest
from PIL import Image

from tinyldm.data.examples import Example, Examples, Request
from tinyldm.errors import InputError
from tinyldm.tasks import base
from tinyldm.tasks.base import read_requests

EAGLE = ["A gray eagle.", "Gray bird with wings.", "A bird, “gray”."]
INFO = {
    "0_main": {
        "original_name": "树",
        "given_description": EAGLE,
        "action_description": "",
        "num_frames": 1,
    },
    "0_attack1": {
        "original_name": "树",
        "given_description": EAGLE,
        "action_description": "The monster is attacking.",
        "num_frames": 2,
    },
}


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path)
    return path


def monsters(folder, info=INFO, names=("0_main_0", "0_attack1_0", "0_attack1_7")):
    folder.mkdir(exist_ok=True)
    for name in names:
        image(folder / "train" / f"{name}.png")
    (folder / "train_info.json").write_text(json.dumps(info, ensure_ascii=False), encoding="utf-8")
    return folder


def read_examples(folder, **options) -> Examples:
    """The examples of a folder, all of which are captioned here."""
    task, examples = base.read_examples(folder, **options)
    assert task.name == "text"
    return examples


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_monsters_have_a_caption_for_each_description(tmp_path):
    """Frame numbers have gaps, so the images decide; a portrait has no action."""
    attack, attack7, main = read_examples(monsters(tmp_path))
    assert main == Example(tmp_path / "train/0_main_0.png", tuple(EAGLE))
    assert (
        attack.prompts
        == attack7.prompts
        == tuple(f"{text} The monster is attacking." for text in EAGLE)
    )
    assert [e.name for e in (attack, attack7)] == ["0_attack1_0.png", "0_attack1_7.png"]


def test_monsters_of_the_test_split(tmp_path):
    monsters(tmp_path)
    image(tmp_path / "test/0_attack1.png")
    entry = {
        "image_name": "0_attack1.png",
        "given_description": "A bird.",
        "action_description": "It is dying.",
    }
    (tmp_path / "test.json").write_text(json.dumps({"0_attack1": entry}))
    expected = Example(tmp_path / "test/0_attack1.png", ("A bird. It is dying.",))
    assert read_examples(tmp_path, split="test").items == (expected,)


def test_files_that_are_no_images_are_passed_over(tmp_path):
    monsters(tmp_path)
    for name in (".DS_Store", "._0_main_0.png", "Thumbs.db"):
        (tmp_path / "train" / name).write_bytes(b"x")
    assert len(read_examples(tmp_path)) == 3


def test_an_image_without_a_key(tmp_path):
    monsters(tmp_path, names=["0_main_0", "9_jump_0"])
    message = refusal(read_examples, tmp_path)
    assert "9_jump_0.png" in message
    assert "'9_jump'" in message
    assert "train_info.json" in message
    examples = read_examples(tmp_path, skip_bad=True)
    assert [e.name for e in examples] == ["0_main_0.png"]
    assert len(examples.problems) == 1


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"0_main": {"given_description": EAGLE}}, ["0_main", "action_description"]),
        ({"0_main": {"action_description": ""}}, ["0_main", "given_description"]),
        (
            {"0_main": {"given_description": [3], "action_description": ""}},
            ["0_main", "given_description"],
        ),
        (
            {"0_main": {"given_description": [], "action_description": ""}},
            ["0_main", "given_description"],
        ),
        (
            {"0_main": {"given_description": EAGLE, "action_description": None}},
            ["0_main", "action_description"],
        ),
        ({"0_main": "x"}, ["0_main", "expected an object", '"x"']),
        ([], ["expected an object, found []"]),
    ],
)
def test_train_info_that_misses_something(tmp_path, info, told):
    message = refusal(read_examples, monsters(tmp_path, info))
    assert all(word in message for word in ["train_info.json", *told])


def test_captions_that_are_not_json(tmp_path):
    monsters(tmp_path)
    for content in (b'{"0_main": ', b"", b"\xff\xfe"):
        (tmp_path / "train_info.json").write_bytes(content)
        message = refusal(read_examples, tmp_path)
        assert "train_info.json" in message
        assert "not JSON" in message or "not UTF-8" in message


def test_no_images_no_folder_no_layout(tmp_path):
    assert "no such folder" in refusal(read_examples, tmp_path / "nowhere")
    assert "not a folder" in refusal(read_examples, image(tmp_path / "a.png"))
    (tmp_path / "empty").mkdir()
    message = refusal(read_examples, tmp_path / "empty")
    assert all(word in message for word in ["train_info.json", "train.csv", "metadata.jsonl"])
    monsters(tmp_path / "hw", names=[])
    assert "no such folder" in refusal(read_examples, tmp_path / "hw")
    (tmp_path / "hw/train").mkdir()
    assert "no images" in refusal(read_examples, tmp_path / "hw")


@pytest.mark.parametrize("place", ["", "train", "images"])
def test_animals(tmp_path, place):
    (tmp_path / "train.csv").write_text(
        "id,animal,object\n000001.png,fish,chair\n000002.png,Elephant,umbrella\n"
    )
    for name in ("000001.png", "000002.png"):
        image(tmp_path / place / name)
    assert read_examples(tmp_path).items == (
        Example(tmp_path / place / "000001.png", ("a fish and a chair",)),
        Example(tmp_path / place / "000002.png", ("an Elephant and an umbrella",)),
    )


def test_animals_without_columns_or_images(tmp_path):
    (tmp_path / "train.csv").write_text("id,animal\n1.png,fish\n")
    assert "'object'" in refusal(read_examples, tmp_path)
    (tmp_path / "train.csv").write_text("id,animal,object\n1.png,fish\n")
    assert "line 2" in refusal(read_examples, tmp_path)
    (tmp_path / "train.csv").write_text("id,animal,object\n1.png,fish,chair\n")
    assert "images/" in refusal(read_examples, tmp_path)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("inside", ["", "train/"])
def test_image_folder(tmp_path, suffix, inside):
    """Quotes, commas, line separators and a byte-order mark in captions come through."""
    texts = ['a "red", big\u2028cube', "龙 🐉"]
    table = tmp_path / f"{inside}metadata.{suffix}"
    table.parent.mkdir(exist_ok=True)
    with open(table, "w", encoding="utf-8-sig", newline="") as file:
        if suffix == "csv":
            csv.writer(file).writerows(
                [["file_name", "extra", "text"], *(["sub/1.png", "x", text] for text in texts)]
            )
        else:
            file.writelines(
                json.dumps({"file_name": "sub/1.png", "text": t}, ensure_ascii=False) + "\n"
                for t in texts
            )
    assert [e.prompts for e in read_examples(tmp_path)] == [(text,) for text in texts]
    assert read_examples(tmp_path)[0].image == tmp_path / inside / "sub/1.png"


def test_image_folder_whose_metadata_is_wrong(tmp_path):
    table = tmp_path / "metadata.jsonl"
    table.write_text('{"file_name": "1.png", "text": "x"}\n{"file_name": "2.png"}\n')
    assert "line 2" in refusal(read_examples, tmp_path)
    assert "'text'" in refusal(read_examples, tmp_path)
    table.write_text('{"file_name": "1.png", "text": 3}\n')
    assert "text: expected a valid string, found 3" in refusal(read_examples, tmp_path)
    table.write_text("oops\n")
    assert "line 1: not JSON" in refusal(read_examples, tmp_path)
    table.write_text("")
    assert "no images" in refusal(read_examples, tmp_path)
    assert "no metadata" in refusal(read_examples, tmp_path, split="test")


def test_prompts_of_each_kind(tmp_path):
    (tmp_path / "p.txt").write_text("a red cube\n\n  a 龙 \n", encoding="utf-8")
    assert read_requests(tmp_path / "p.txt") == [
        Request("0000.png", "a red cube"),
        Request("0001.png", "a 龙"),
    ]
    entry = {"image_name": "0_main.png", "given_description": "A bird.", "text_prompt": "A bird."}
    (tmp_path / "test.json").write_text(json.dumps({"0_main": entry}))
    assert read_requests(tmp_path / "test.json") == [Request("0_main.png", "A bird.")]
    (tmp_path / "generate.csv").write_text(
        "id,animal,object,prompt\n1.png,shark,sneaker,a shark and a sneaker\n"
    )
    assert read_requests(tmp_path / "generate.csv") == [Request("1.png", "a shark and a sneaker")]


@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "/x.png",
        "a/../../x.png",
        "..",
        "..\\x.png",
        "C:x.png",
        "a/b.png",
        "",
        ".",
        ".png",
        "x",
        "x.exe",
        "龙" * 80 + ".png",
    ],
)
def test_a_name_that_could_leave_the_output_folder_is_refused(tmp_path, name):
    (tmp_path / "test.json").write_text(json.dumps({"k": {"image_name": name, "text_prompt": "x"}}))
    assert repr(name) in refusal(read_requests, tmp_path / "test.json")


def test_prompts_that_are_wrong(tmp_path):
    assert "no such file" in refusal(read_requests, tmp_path / "p.txt")
    assert ".txt, .json, .csv" in refusal(read_requests, tmp_path / "p.md")
    (tmp_path / "p.txt").write_text("\n\n")
    assert "no prompts" in refusal(read_requests, tmp_path / "p.txt")
    (tmp_path / "p.csv").write_text("id,prompt\n1.png,a\n1.png,b\n")
    assert "'1.png' comes twice" in refusal(read_requests, tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text(
        "id,prompt\na.png,a\nA.png,b\n"
    )  # one file where case does not count
    assert "'A.png' comes twice" in refusal(read_requests, tmp_path / "p.csv")
    (tmp_path / "p.json").write_text('{"k": {"image_name": "x.png"}}')
    assert "k: says nothing of 'text_prompt'" in refusal(read_requests, tmp_path / "p.json")
    (tmp_path / "p.json").write_text('{"k": {"image_name": "x.png", "text_prompt": "x"}, "k": {}}')
    assert "'k' comes twice" in refusal(read_requests, tmp_path / "p.json")
    for value in ('"\\ud800"', "1" * 5000, "[" * 100_000):
        (tmp_path / "p.json").write_text(
            f'{{"k": {{"image_name": "x.png", "text_prompt": {value}}}}}'
        )
        assert "p.json: not JSON" in refusal(read_requests, tmp_path / "p.json")
    (tmp_path / "p.json").write_text('[["red cube"]]')
    text = base.find_task("text")  # a list would otherwise be read as labels
    assert "expected an object" in refusal(read_requests, tmp_path / "p.json", text)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            "1.png,a red, big cube",
            "line 2 has more",
        ),  # a comma without quotes would cut the caption
        ('1.png,"a\n2.png,b', "not CSV"),  # an open quote would swallow the other rows
        ('1.png,"a "red" cube"', "line 2: not CSV"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_that_would_be_misread(tmp_path, rows, told, end):
    (tmp_path / "p.csv").write_bytes(f"id,prompt\n{rows}\n".replace("\n", end).encode())
    assert told in refusal(read_requests, tmp_path / "p.csv")


def test_a_table_with_a_column_twice(tmp_path):
    (tmp_path / "p.csv").write_text("id,prompt,prompt\n1.png,a,b\n")
    assert "'prompt'" in refusal(read_requests, tmp_path / "p.csv")
