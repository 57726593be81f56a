"""What is handed in is what was asked for, or the one line says what is wrong."""

import json
import zipfile

import pytest
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch

NAMES = [f"{k}_main.png" for k in range(4)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """test.json, generate.csv, four images of 8x8 in out/, sample.py's about/ beside them."""
    monkeypatch.chdir(tmp_path)
    entries = {name[:-4]: {"image_name": name, "text_prompt": "x"} for name in NAMES}
    (tmp_path / "test.json").write_text(json.dumps(entries))
    (tmp_path / "generate.csv").write_text(
        "id,animal,object,prompt\n" + "".join(f"{n},cat,cup,x\n" for n in NAMES)
    )
    (tmp_path / "out" / "about").mkdir(parents=True)
    (tmp_path / "out" / "about" / "grid.png").write_bytes(b"")
    for k, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "out" / name)
    return tmp_path


def submit(*arguments):
    return dispatch(
        COMMANDS, ["submit", "out", "--prompts", "test.json", "--size", "8", *arguments]
    )


@pytest.mark.parametrize("inside", ["", "images"])
def test_the_archive_holds_the_images_alone(folder, capsys, inside):
    assert submit("--out", "a/s.zip", *(["--inside", inside] if inside else [])) == 0
    assert "4 images of 8x8" in capsys.readouterr().out
    with zipfile.ZipFile("a/s.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{inside}/{name}" if inside else name for name in NAMES]
        assert archive.read(archive.namelist()[1]) == (folder / "out" / NAMES[1]).read_bytes()


def test_equal_images_give_an_equal_archive_and_nothing_is_overwritten(folder, capsys):
    assert submit("--out", "s.zip") == 0
    first = (folder / "s.zip").read_bytes()
    assert submit("--out", "s.zip") == 2
    assert "exists already" in capsys.readouterr().err
    assert submit("--out", "s.zip", "--overwrite") == 0
    assert (folder / "s.zip").read_bytes() == first


def break_truncated(folder):
    Image.effect_noise((8, 8), 50).convert("RGB").save(folder / "out" / NAMES[2])
    data = (folder / "out" / NAMES[2]).read_bytes()
    (folder / "out" / NAMES[2]).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda f: [(f / "out" / n).unlink() for n in NAMES[1:3]],
            "2 of 4 images are missing: 1_main.png, 2_main.png",
        ),
        (
            lambda f: Image.new("RGB", (8, 8)).save(f / "out" / "more.png"),
            "1 images that nothing asks for: more.png",
        ),
        (
            lambda f: Image.new("RGB", (8, 9)).save(f / "out" / NAMES[3]),
            "expected 8x8 RGB .* 3_main.png is 8x9 RGB PNG",
        ),
        (lambda f: Image.new("L", (8, 8)).save(f / "out" / NAMES[0]), "0_main.png is 8x8 L PNG"),
        (
            lambda f: Image.new("RGBA", (8, 8)).save(f / "out" / NAMES[0]),
            "0_main.png is 8x8 RGBA PNG",
        ),
        (
            lambda f: Image.new("RGB", (8, 8)).save(f / "out" / NAMES[0], "JPEG"),
            "0_main.png is 8x8 RGB JPEG",
        ),
        (
            lambda f: (f / "out" / NAMES[0]).write_text("no"),
            "0_main.png: not an image that can be read",
        ),
        (break_truncated, "2_main.png: not an image that can be read"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(folder, capsys, harm, said):
    import re

    harm(folder)
    assert submit("--out", "s.zip") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(said, error)
    assert not (folder / "s.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "s.rar"], "expected a name that ends in .zip"),
        (["--inside", "x"], "belong to --out"),
        (["--out", "s.zip", "--inside", "../x"], "expected a plain name"),
        (["--overwrite"], "belong to --out"),
        (["--size", "0"], "--size 0: expected pixels such as 64"),
        (["--size", "-1"], "--size -1: expected pixels such as 64"),
    ],
)
def test_bad_options(folder, capsys, arguments, said):
    assert submit(*arguments) == 2
    assert said in capsys.readouterr().err


def test_the_size_that_an_assignment_asks_for(folder, capsys):
    for file, size in {"test.json": 256, "generate.csv": 64}.items():
        assert dispatch(COMMANDS, ["submit", "out", "--prompts", file]) == 2
        assert f"expected {size}x{size} RGB" in capsys.readouterr().err
        for name in NAMES:
            Image.new("RGB", (size, size)).save(folder / "out" / name)
        assert dispatch(COMMANDS, ["submit", "out", "--prompts", file]) == 0


@pytest.mark.parametrize(
    ("file", "content", "names", "size"),
    [
        ("test.json", {"0": {"image_name": "0.png", "text_prompt": "x"}}, ["0.png"], (256, 256)),
        ("generate.csv", "id,prompt\n0.png,a fish and a chair\n", ["0.png"], (64, 64)),
        ("new_test.json", [["red cube"], ["blue cube", "red cube"]], ["0.png", "1.png"], (64, 64)),
        ("label_to_img.json", {"a.png": "b.jpg"}, ["a.jpg"], (512, 384)),
    ],
)
def test_each_assignment_has_its_size(tmp_path, monkeypatch, capsys, file, content, names, size):
    """(width, height), as the assignments' pages say; --size names another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    for place in ("labels/a.png", "imgs/b.jpg"):  # what the landscapes' prompts name
        (tmp_path / place).parent.mkdir()
        Image.new("L", (8, 8)).save(tmp_path / place)
    (tmp_path / "out").mkdir()

    def handed_in(width, height, *arguments):
        for name in names:
            Image.new("RGB", (width, height)).save(tmp_path / "out" / name)
        return dispatch(COMMANDS, ["submit", "out", "--prompts", file, *arguments])

    assert handed_in(*size) == 0
    assert f"of {size[0]}x{size[1]}, as {file} asks for" in capsys.readouterr().out
    assert handed_in(size[0], size[1] + 8) == 2
    assert f"expected {size[0]}x{size[1]} RGB" in capsys.readouterr().err
    assert handed_in(40, 24, "--size", "40x24") == 0
    assert handed_in(24, 40, "--size", "40x24") == 2
