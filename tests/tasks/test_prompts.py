"""Typed prompts: what a text stands for, the text of a prompt, and paths when folders move."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinyldm.data.examples import Example
from tinyldm.tasks.base import find_task, read_examples
from tinyldm.tasks.labels import Labels
from tinyldm.tasks.landscape import Scene

TEXT, LABELS, LANDSCAPE = (find_task(name) for name in ("text", "labels", "landscape"))
WORDS = st.text("abc |龙", min_size=1).map(str.strip).filter(bool)
PATHS = st.lists(st.text("ab. 龙", min_size=1).map(lambda s: f"x{s}x"), min_size=1, max_size=3)


# ---- captions and labels


@given(st.text())
def test_a_caption_is_its_own_text(caption):
    assert TEXT.prompt(caption) == caption
    assert TEXT.text(TEXT.prompt(caption)) == caption


@given(st.lists(WORDS))
def test_labels_survive_their_text(names):
    labels = Labels(tuple(names))
    assert LABELS.prompt(LABELS.text(labels)) == labels
    assert LABELS.prompt(str(labels)) == labels


def test_labels_as_one_types_them():
    assert LABELS.prompt(" red cube ,, gray sphere,") == Labels(("red cube", "gray sphere"))
    assert LABELS.prompt("") == LABELS.prompt(" , ") == Labels()
    assert LABELS.text(Labels(("red cube", "gray sphere"))) == "red cube, gray sphere"
    assert Labels.of(Labels(("a", "b"))) == Labels(("a", "b"))


# ---- scenes


@given(st.one_of(st.just([]), PATHS), st.one_of(st.just([]), PATHS))
def test_scenes_survive_their_text(map, reference):
    """With a map, a reference, both or neither; as typed, and as a run keeps them."""
    folder = Path("/no/such/folder")
    scene = Scene("/".join(map), "/".join(reference), folder)
    assert LANDSCAPE.prompt(LANDSCAPE.text(scene, folder), folder) == scene
    typed = LANDSCAPE.prompt(str(scene))
    assert (typed.map_file, typed.reference_file) == (scene.map_file, scene.reference_file)


def test_scenes_as_one_types_them():
    assert LANDSCAPE.prompt(" m.png|r.jpg ") == Scene("m.png", "r.jpg")
    assert LANDSCAPE.prompt("m.png") == Scene("m.png")
    assert LANDSCAPE.prompt("| r.jpg") == Scene("", "r.jpg")
    assert LANDSCAPE.prompt("") == Scene()
    assert (Scene().map_file, Scene().reference_file) == (None, None)
    assert str(Scene("m.png", "r.jpg", Path("land"))) == "land/m.png | land/r.jpg"
    assert str(Scene("m.png", folder=Path("land"))) == "land/m.png"
    assert str(Scene()) == ""


@pytest.fixture
def land(tmp_path):
    """A folder with a map and a reference."""
    for name in ("labels/m.png", "imgs/r.jpg"):
        (tmp_path / "land" / name).parent.mkdir(parents=True)
        (tmp_path / "land" / name).write_text(name)
    return tmp_path / "land"


def contents(scene: Scene) -> list[str]:
    return [scene.map_file.read_text(), scene.reference_file.read_text()]


def test_the_text_of_a_scene_is_relative_to_the_data(land, monkeypatch):
    """However the folder is called where the scene was made and where it is written down."""
    monkeypatch.chdir(land.parent)
    text = "labels/m.png | imgs/r.jpg"
    for made in (land, Path("land"), Path("land/../land")):
        scene = Scene("labels/m.png", "imgs/r.jpg", made)
        for folder in (land, Path("land")):
            assert LANDSCAPE.text(scene, folder) == text
    assert contents(LANDSCAPE.prompt(text, land)) == ["labels/m.png", "imgs/r.jpg"]
    assert LANDSCAPE.prompt(text, land) == LANDSCAPE.prompt(text, Path("elsewhere"))


def test_a_folder_that_moved(land):
    text = LANDSCAPE.text(Scene("labels/m.png", "imgs/r.jpg", land), land)
    moved = land.rename(land.with_name("moved"))
    assert not LANDSCAPE.prompt(text, land).map_file.exists()
    assert contents(LANDSCAPE.prompt(text, moved)) == ["labels/m.png", "imgs/r.jpg"]


def test_absolute_paths_of_old_runs_are_still_read(land):
    text = f"{land}/labels/m.png | {land}/imgs/r.jpg"
    for folder in (Path(), land, land / "deeper", Path("/elsewhere")):
        scene = LANDSCAPE.prompt(text, folder)
        assert contents(scene) == ["labels/m.png", "imgs/r.jpg"]
        assert str(scene) == text
        assert LANDSCAPE.text(scene, land) == "labels/m.png | imgs/r.jpg"


def test_a_file_outside_of_the_data_keeps_its_whole_path(land):
    (land.parent / "mine.png").write_text("mine")
    scene = Scene("../mine.png", "imgs/r.jpg", land)
    text = LANDSCAPE.text(scene, land)
    assert text == f"{land.parent}/mine.png | imgs/r.jpg"
    assert LANDSCAPE.prompt(text, land).map_file.read_text() == "mine"


def test_symbolic_links_in_the_data_lie_in_the_data(land):
    (land.parent / "disk").mkdir()
    (land / "imgs").rename(land.parent / "disk/imgs")
    (land / "imgs").symlink_to(land.parent / "disk/imgs")
    scene = Scene("labels/m.png", "imgs/r.jpg", land)
    assert LANDSCAPE.text(scene, land) == "labels/m.png | imgs/r.jpg"
    (land.parent / "link").symlink_to(land)
    assert LANDSCAPE.text(scene, land.parent / "link") == "labels/m.png | imgs/r.jpg"


def test_scenes_of_a_folder_name_its_files_from_there(tmp_path):
    for place, suffix, mode in (("imgs", "jpg", "RGB"), ("labels", "png", "L")):
        folder = tmp_path / "train_resized" / place
        folder.mkdir(parents=True)
        Image.new(mode, (8, 8)).save(folder / f"a.{suffix}")
    _, examples = read_examples(tmp_path)
    scene = Scene("train_resized/labels/a.png", "train_resized/imgs/a.jpg", tmp_path)
    assert examples.items == (Example(tmp_path / "train_resized/imgs/a.jpg", (scene,)),)
    assert examples[0].prompts[0].folder == tmp_path
    assert LANDSCAPE.text(examples[0].prompts[0], tmp_path) == LANDSCAPE.text(scene, tmp_path)


def test_outlines_may_come_from_pictures_outside_of_the_data(tmp_path):
    """A table of captions may name any picture by its whole path, as for --task text."""
    picture, data = tmp_path / "disk/a.png", tmp_path / "data"
    for folder in (picture.parent, data):
        folder.mkdir()
    Image.new("RGB", (8, 8)).save(picture)
    rows = [{"file_name": str(picture), "text": "a ghost"}]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, examples = read_examples(data, task="outline")
    (sketch,) = examples[0].prompts
    assert sketch.file == picture
    assert find_task("outline").text(sketch, data) == f"{picture} | a ghost"
