"""Files that are whole or absent, with the modes that umask gives."""

import os
import stat

import pytest
import torch

from tinyldm.errors import InputError
from tinyldm.files import clear_drafts, read_text, replacing, replacing_files, write_text
from tinyldm.weights import read_shapes, read_weights, write_weights


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("one")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.json"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_modes_are_those_of_umask(tmp_path, umask):
    """Weights too, which safetensors by itself writes for nobody but the owner."""
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.json", "{}")
        write_weights(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
        with replacing_files(tmp_path / "new") as draft:
            write_weights(draft / "a.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    for file in ("a.json", "a.safetensors", "new/a.safetensors"):
        assert mode(tmp_path / file) == 0o666 & ~umask
    assert mode(tmp_path / "new") == 0o777 & ~umask


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "a.json").symlink_to("precious.txt")
    write_text(tmp_path / "a.json", "{}")
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert not (tmp_path / "a.json").is_symlink()


def test_files_take_their_places_together_or_not_at_all(tmp_path):
    """The second one fails, and the first stays as it was; what else is there stays."""
    folder = tmp_path / "vae"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "notes.txt"):
        (folder / name).write_text("old")

    def fails():
        with replacing_files(folder) as draft:
            (draft / "model.safetensors").write_text("new")
            with replacing_files(draft) as inner:
                raise OSError(28, "No space left on device", str(inner / "config.json"))

    with pytest.raises(OSError, match="No space left") as caught:
        fails()
    assert caught.value.filename == str(folder / "config.json")
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "config.json": "old",
        "model.safetensors": "old",
        "notes.txt": "old",
    }
    with replacing_files(folder) as draft:
        for name in ("config.json", "model.safetensors"):
            (draft / name).write_text("new")
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "config.json": "new",
        "model.safetensors": "new",
        "notes.txt": "old",
    }


def test_drafts_of_killed_processes_are_cleared(tmp_path):
    """A process ends in the middle of a file and of a folder; a link among them is not followed."""
    (tmp_path / "mine.txt").write_text("mine")
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "a.json") as draft, replacing_files(tmp_path / "b") as folder:
            draft.write_text("half")
            (folder / "half").write_text("half")
            os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / ".tinyldm-01234567-c").symlink_to(tmp_path)
    assert len(list(tmp_path.glob(".tinyldm-*"))) == 3
    clear_drafts(tmp_path, "a.json")
    assert len(list(tmp_path.glob(".tinyldm-*"))) == 2
    clear_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_regular_file_is_named_for_what_it_is(tmp_path):
    """A pipe would keep a reader waiting, and "no such file" would be no help to its owner."""
    os.mkfifo(tmp_path / "prompts.json")
    for read in (read_text, read_shapes, read_weights):
        with pytest.raises(InputError, match="prompts.json: is a pipe, expected a file"):
            read(tmp_path / "prompts.json")
        with pytest.raises(InputError, match="is a folder, expected a file"):
            read(tmp_path)
        with pytest.raises(InputError, match="nowhere: no such file"):
            read(tmp_path / "nowhere")
        with pytest.raises(InputError, match="no such file"):
            read(tmp_path / "prompts.json\0")
