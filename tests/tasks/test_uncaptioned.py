"""Folders that no file describes: what is found in them, and the commands from folder to scores."""

import json
import re

import pytest
from bad_inputs import fault, run_command
from PIL import Image

from tinyldm.errors import InputError
from tinyldm.tasks.base import find_task, read_examples
from tinyldm.training.chosen import settings_for


def pictures(folder, count, suffix=".png", size=(8, 8)):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        shade = (7 * k + 31 * len(folder.name)) % 256
        Image.new("RGB", size, (shade, 255 - shade, 10 * k)).save(folder / f"{k}{suffix}")
    return folder


def understood(folder, **options):
    task, examples = read_examples(folder, **options)
    return task.name, examples.summary


def refusal(folder, **options):
    with pytest.raises(InputError) as caught:
        read_examples(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what was understood


def test_a_subfolder_for_each_class(tmp_path):
    """Hidden files and what archives leave are no classes; folders below a class belong to it."""
    pictures(tmp_path / "cats", 3, ".JPG")
    pictures(tmp_path / "dogs" / "big", 2)
    pictures(tmp_path / "__MACOSX", 2)
    pictures(tmp_path / ".cache", 2)
    (tmp_path / "dogs" / "._0.png").write_bytes(b"no image")
    (tmp_path / "birds").mkdir()  # without an image
    task, examples = read_examples(tmp_path)
    assert task.name == "classes"
    assert examples.names == ("cats", "dogs")
    shown = [(e.image.relative_to(tmp_path).as_posix(), *map(str, e.prompts)) for e in examples]
    assert shown == [(f"cats/{k}.JPG", "cats") for k in range(3)] + [
        (f"dogs/big/{k}.png", "dogs") for k in range(2)
    ]
    line = f"{tmp_path}: reading 2 classes, cats (3), dogs (2), from subfolders"
    assert examples.summary == line
    assert read_examples(tmp_path, hold_out=0.2)[1].summary == line  # counted with those held out


def test_images_alone(tmp_path):
    pictures(tmp_path, 4, ".webp")
    task, examples = read_examples(tmp_path)
    assert task.name == "unconditional"
    assert [e.prompts for e in examples] == [("",)] * 4
    assert examples.summary == f"{tmp_path}: reading 4 images without captions"


@pytest.mark.parametrize(
    ("make", "name", "told"),
    [
        (
            lambda f: pictures(f / "cats", 3),
            "unconditional",
            "3 images without captions, from cats/",
        ),
        (
            lambda f: [pictures(f / "pets" / "pets" / kind, 2) for kind in "ab"],
            "classes",
            "2 classes, a (2), b (2), from subfolders of pets/pets/",
        ),
        (
            lambda f: [pictures(f, 3), pictures(f / "more", 2)],
            "unconditional",
            "5 images without captions, 2 of them from more/",
        ),
        (
            lambda f: [pictures(f / part / kind, 2) for part in ("Train", "val") for kind in "ab"],
            "classes",
            "2 classes, a (2), b (2), from subfolders of Train/; not read: val/",
        ),
        (
            lambda f: [pictures(f / part, 2) for part in ("train", "test")],
            "unconditional",
            "2 images without captions, from train/; not read: test/",
        ),
        (
            lambda f: [pictures(f / kind, 2) for kind in ("train", "ship", "plane")],
            "classes",  # of vehicles
            "3 classes, plane (2), ship (2), train (2), from subfolders",
        ),
        (
            lambda f: [pictures(f / str(k), 1) for k in range(7)],
            "classes",
            "7 classes, 0 (1), 1 (1), 2 (1), 3 (1), 4 (1) and 2 more, from subfolders",
        ),
        (
            lambda f: [pictures(f, 2), (f / "3.HEIC").touch(), (f / "0.txt").touch()],
            "unconditional",
            "2 images without captions; not read: 1 .heic files, 1 .txt files",
        ),
    ],
)
def test_what_students_have_is_told_in_one_line(tmp_path, make, name, told):
    make(tmp_path)
    assert understood(tmp_path) == (name, f"{tmp_path}: reading {told}")


def test_images_beside_classes_are_refused_or_left_out(tmp_path):
    for kind in ("cats", "dogs"):
        pictures(tmp_path / kind, 2)
    pictures(tmp_path, 3)
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / '0.png'}: lies beside the class folders cats, dogs")
    assert "--task unconditional" in message
    assert "(and 2 more such)" in message
    _, examples = read_examples(tmp_path, skip_bad=True)
    assert (len(examples), len(examples.problems)) == (4, 3)
    assert understood(tmp_path, task="unconditional") == (
        "unconditional",
        f"{tmp_path}: reading 7 images without captions, 4 of them from cats/, dogs/",
    )


def test_a_table_beside_images_is_not_passed_over(tmp_path):
    """It may say what they show: such a folder is read without it only where that is asked for."""
    pictures(tmp_path / "train", 3)
    (tmp_path / "train" / "labels.csv").write_text("id,breed\n0,pug\n")
    message = refusal(tmp_path)
    assert "not a known layout" in message
    assert "--task unconditional" in message
    assert understood(tmp_path, task="unconditional")[0] == "unconditional"
    assert "2 or more classes" in refusal(tmp_path, task="classes")


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "not a known layout" in refusal(tmp_path / "empty")
    for part in ("val", "test"):
        pictures(tmp_path / "split" / part, 1)
    assert refusal(tmp_path / "split") == f"{tmp_path / 'split'}: has test/, val/ but no train/"
    for kind in ("a, b", "c"):
        pictures(tmp_path / "comma" / kind, 1)
    assert "without a comma" in refusal(tmp_path / "comma")
    pictures(tmp_path / "one" / "cats", 2)
    assert "2 or more classes" in refusal(tmp_path / "one", task="classes")
    assert "is for --task unconditional" in refusal(tmp_path / "one", task="text")


# ---- the commands

SHORT = "--vae none --size 16 --batch-size 4 --max-steps 2 --precision float32 --device cpu"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs a command line in a folder of its own, and returns what it printed."""
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))

    def run(line):
        ended = run_command(tmp_path, line.split())
        assert (ended.status, ended.crash) == (0, ""), ended
        return ended.out

    return run


def names_in(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_images_alone_from_the_folder_to_the_scores(tmp_path, command):
    pictures(tmp_path / "photos", 10)
    out = command(f"train.py --data photos --hold-out 0.2 --out runs/photos {SHORT}")
    assert "photos: reading 10 images without captions\n" in out
    assert "8 images" in out
    (folder,) = (tmp_path / "runs" / "photos" / "checkpoints").iterdir()
    config = json.loads((folder / "config.json").read_text())
    assert config["condition"] == {"task": "unconditional"}
    assert config["settings"]["cfg_drop"] == 0
    assert config["network"]["token_dim"] is config["network"]["vector_dim"] is None
    with Image.open(tmp_path / "runs" / "photos" / "previews" / "step-0000002.png") as preview:
        assert preview.size == (4 * 18 + 2, 4 * 18 + 2)  # sixteen pictures, not one
    page = (tmp_path / "runs" / "photos" / "report.html").read_text()
    assert "prompts, row by row" not in page
    assert "--task unconditional" in page

    command("sample.py --count 3 --steps 2 --out drawn")
    assert names_in(tmp_path / "drawn") == ["00.png", "01.png", "02.png"]
    assert len({(tmp_path / "drawn" / f"0{k}.png").read_bytes() for k in range(3)}) == 3
    command("sample.py --steps 2 --out sixteen")
    assert len(names_in(tmp_path / "sixteen")) == 16
    one, other = (tmp_path / place / "01.png" for place in ("drawn", "sixteen"))
    assert one.read_bytes() == other.read_bytes()  # picture k depends on seed and k alone
    command("sample.py --strip --steps 2 --out strip")
    assert (tmp_path / "strip" / "about" / "strip.gif").is_file()
    told = command("evaluate drawn --reference photos --clip tiny --metrics clip-fd cmmd")
    assert "clip-fd" in told
    told = command("sweep --steps 2 --clip tiny --batch-size 2")
    assert len(names_in(tmp_path / "runs" / "photos" / "sweep" / "held_out")) == 2
    (advised,) = re.findall("submit with: python (.*)", told)
    command(advised)  # which asks for no prompts: there are none
    assert len(names_in(tmp_path / "submission")) == 2
    command("train.py --resume --out runs/photos --max-steps 3 --device cpu")


def test_nothing_can_be_asked_of_images_alone(tmp_path, command):
    pictures(tmp_path / "photos", 4)
    command(f"train.py --data photos --out runs/photos {SHORT}")
    for line, words in {
        "sample.py --prompt cat": ["'cat'", "without captions", "--count"],
        "sample.py --guidance 3": ["--guidance 3", "nothing to guide to"],
        "sample.py --count 0": ["--count", "from 1"],
        "sweep --clip tiny": ["--hold-out 0.05)"],
        "train.py --data photos --cfg-drop 0.1": ["--cfg-drop 0.1", "expected 0"],
        "train.py --data photos --text-encoder tiny": ["--text-encoder", "--task text"],
        "evaluator train --data photos --out judge": ["not judged by an evaluator"],
    }.items():
        assert fault(run_command(tmp_path, line.split()), *words) == "", line


def test_classes_from_the_folder_to_the_scores(tmp_path, command):
    for kind in ("cats", "dogs"):
        pictures(tmp_path / "pets" / kind, 10)
    out = command(f"train.py --data pets --hold-out 0.2 --out runs/pets {SHORT}")
    assert "pets: reading 2 classes, cats (10), dogs (10), from subfolders\n" in out
    assert "16 images" in out
    (folder,) = (tmp_path / "runs" / "pets" / "checkpoints").iterdir()
    config = json.loads((folder / "config.json").read_text())
    assert config["condition"]["names"] == ["cats", "dogs"]
    assert config["preview_prompts"] == ["cats"] * 8 + ["dogs"] * 8

    command("sample.py --prompt cats --count 2 --steps 2 --out cats")
    assert names_in(tmp_path / "cats") == ["00-cats.png", "01-cats.png"]
    command("sample.py --count 4 --steps 2 --out drawn")
    assert [name[3:7] for name in names_in(tmp_path / "drawn")] == ["cats", "dogs"] * 2
    out = command("evaluator train --data pets --size 16 --steps 2 --batch-size 4 --out judge")
    assert "reading 2 classes" in out
    told = command("evaluate drawn --evaluator judge --device cpu")  # from what it was drawn
    assert re.search(r"evaluator +.*4", told)
    (tmp_path / "asked.txt").write_text("cats\ndogs\n")
    command("sample.py --prompts asked.txt --steps 2 --out asked")
    told = command("evaluate asked --prompts asked.txt --evaluator judge --device cpu")
    assert "top-k" in told
    ended = run_command(tmp_path, ["evaluate", "asked", "--prompts", "asked.txt"])
    assert fault(ended, "expected --evaluator FOLDER", "evaluator train") == ""
    told = command("evaluate asked --prompts asked.txt --reference pets --clip tiny --metrics cmmd")
    assert "cmmd" in told


def test_a_damaged_picture_is_named_or_left_out(tmp_path, command):
    for kind in ("cats", "dogs"):
        pictures(tmp_path / "pets" / kind, 4)
    file = tmp_path / "pets" / "cats" / "2.png"
    file.write_bytes(file.read_bytes()[:40])
    ended = run_command(tmp_path, f"train.py --data pets --out run {SHORT}".split())
    assert fault(ended, "pets/cats/2.png") == ""
    assert not (tmp_path / "run").exists()
    assert "1 left out" in command(f"train.py --data pets --out run --skip-bad {SHORT}")


def test_small_square_images_keep_their_size_up_to_a_multiple_of_16(tmp_path):
    for native, given, size, preset in (
        ((28, 28), {}, (32, 32), "toy"),
        ((96, 96), {}, (96, 96), "toy"),
        ((218, 178), {}, (64, 64), "toy"),
        ((512, 512), {}, (64, 64), "toy"),
        ((512, 512), {"size": (128, 128)}, (128, 128), "toy"),
        ((512, 512), {"size": (256, 256)}, (256, 256), "base"),
    ):
        for name in ("classes", "unconditional"):
            settings = settings_for({"data": "d", **given}, native, find_task(name))
            assert (settings.size, settings.preset) == (size, preset)
            assert settings.cfg_drop == (0 if name == "unconditional" else 0.1)
