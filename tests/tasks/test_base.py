"""Tasks from outside the library, and what an Encoder and a Task do unless they say otherwise."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tinyldm.condition import Condition
from tinyldm.data.examples import Example, Request
from tinyldm.errors import InputError
from tinyldm.tasks.base import (
    TASKS,
    Encoder,
    find_task,
    read_examples,
    read_requests,
    tasks,
)
from tinyldm.tasks.labels import LabelTask
from tinyldm.tasks.landscape import LandscapeTask
from tinyldm.tasks.outline import OutlineTask
from tinyldm.tasks.super_resolution import SuperResolutionTask
from tinyldm.tasks.text import TextTask
from tinyldm.tasks.uncaptioned import ClassTask, UnconditionalTask

MODULE = """
from tinyldm.data.examples import Example, Layout, images_in
from tinyldm.tasks.base import Task


def read(folder, split, problems):
    return [Example(image, (image.stem,)) for image in images_in(folder)]


class MyTask(Task):
    name = "mine"
    layouts = (
        Layout(
            "named",
            "images whose names are their captions",
            detect=lambda folder: (folder / "named").is_file(),
            read=read,
        ),
    )

    def recipe(self, native, given):
        return {}

    def conditioning(self, settings, names):
        return {}

    def encoder(self, facts, area, device):
        raise NotImplementedError


class Unfinished(Task):
    name = "unfinished"


class Stranger:
    pass


number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder, under a name that no other test has."""
    name = "outside_" + tmp_path.name.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- which task


def test_the_tasks_of_the_library_are_known_by_name():
    kinds = [TextTask, LabelTask, LandscapeTask, ClassTask, UnconditionalTask]
    kinds += [OutlineTask, SuperResolutionTask]
    assert [type(task) for task in tasks()] == kinds
    assert [task.name for task in tasks()] == list(TASKS)


def test_a_task_from_outside_is_found_in_the_current_folder(module):
    task = find_task(f"{module}:MyTask")
    assert task.name == "mine"
    assert type(task).__name__ == "MyTask"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "sculpture",
            "--task sculpture: expected text, labels, landscape, classes, unconditional, outline, "
            "super-resolution or my",
        ),
        ("", "--task : expected text"),
        ("no_such_module_here:MyTask", "no module no_such_module_here"),
        ("MODULE:Nowhere", "has no Nowhere"),
        ("MODULE:", "expected my_module:name"),
        (":MyTask", "expected my_module:name"),
        ("MODULE:Stranger", "not a class derived from tinyldm.tasks.base.Task"),
        ("MODULE:number", "not a class derived from tinyldm.tasks.base.Task"),
        ("MODULE:Unfinished", "Unfinished"),
        ("tinyldm.tasks.base:Task", "abstract"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(module, name, told):
    name = name.replace("MODULE", module)
    message = refusal(find_task, name)
    assert message.startswith(f"--task {name}: ")
    assert told in message


def test_a_module_that_lacks_something_says_what(module, tmp_path):
    (tmp_path / f"{module}_more.py").write_text("import something_not_installed\n")
    message = refusal(find_task, f"{module}_more:MyTask")
    assert "something_not_installed" in message


def test_a_task_from_outside_reads_its_folder_and_its_prompts(module, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a cat", "a dog"):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    (folder / "notes.csv").touch()  # it may say what they show
    assert "not a known layout" in refusal(read_examples, folder)
    message = refusal(read_examples, folder, task=f"{module}:MyTask")
    assert "expected images whose names are their captions" in message  # and no other layout

    (folder / "named").touch()
    task, examples = read_examples(folder, task=f"{module}:MyTask")
    assert task.name == "mine"
    assert examples.items == (
        Example(folder / "a cat.png", ("a cat",)),
        Example(folder / "a dog.png", ("a dog",)),
    )
    assert (examples.folder, examples.layout.name, examples.names) == (folder, "named", ())
    (tmp_path / "p.txt").write_text("a cow\n")
    assert read_requests(tmp_path / "p.txt", task) == [Request("0000.png", "a cow")]


def test_options_of_the_librarys_tasks_are_refused_by_a_task_from_outside(module):
    task = find_task(f"{module}:MyTask")
    task.check_options({"size": (64, 64), "lr": 1e-3})
    message = refusal(task.check_options, {"label_form": "maps"})
    assert message == "--label-form maps: belongs to --task labels, this is mine"


def test_unless_it_says_otherwise_a_task_has_captions_and_judges_nothing(module):
    task = find_task(f"{module}:MyTask")
    assert task.prompt("a red cube", Path("anywhere")) == "a red cube"
    assert task.text("a red cube", Path("anywhere")) == "a red cube"
    assert task.judge(()) is None
    assert task.names(Path("anywhere")) == ()
    assert not task.reads(Path("anything.json"))
    assert not task.guides_style


# ---- which task a file of prompts is for


def test_the_format_of_a_file_of_prompts_tells_its_task(tmp_path):
    file = tmp_path / "test.json"
    file.write_text(json.dumps([["red cube"]]))
    assert find_task("labels").reads(file)
    assert not find_task("landscape").reads(file)
    file.write_text(json.dumps({"v.png": "r.jpg"}))
    assert find_task("landscape").reads(file)
    assert not find_task("labels").reads(file)
    file.write_text(json.dumps({"k": {"image_name": "x.png", "text_prompt": "x"}}))
    assert not any(task.reads(file) for task in tasks())
    assert read_requests(file) == [Request("x.png", "x")]
    assert not any(task.reads(tmp_path / "p.txt") for task in tasks())


# ---- encoders


class Lengths(Encoder):
    """One token, the length of the prompt."""

    fingerprint = "lengths"
    width = 1

    def stored(self, prompts):
        return Condition(torch.tensor([[[float(len(str(prompt)))]] for prompt in prompts]))


class WithMaps(Lengths):
    map_size = (2, 2)


def test_an_encoder_need_say_no_more_than_what_is_stored():
    encoder = Lengths()
    assert encoder.empty == ""
    assert encoder.map_size is None
    assert encoder.keys(["a", 12]) == ["a", "12"]
    assert encoder.check(["a", ""]) is None
    stored = encoder.stored(["a", "bcd"])
    assert encoder.finish(stored, None, None) is stored
    assert encoder.finish(stored, None, torch.Generator()) is stored
    assert torch.equal(encoder.encode(["a", "bcd"]).tokens, stored.tokens)


def test_an_encoder_without_a_stored_part_is_none():
    with pytest.raises(TypeError, match="stored"):
        Encoder()


def test_an_encoder_with_maps_has_to_say_where_they_are():
    for call in (WithMaps().map_file, WithMaps().read_map):
        with pytest.raises(NotImplementedError, match="WithMaps has a map_size but no "):
            call("x")
