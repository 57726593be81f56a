"""Commands run in this process on a small folder, for tests of what they say to bad input.

build_place() makes the folder, run_command() runs a command line in it as a shell would, and
fault() says in which way its end was not one clear line.
"""

import contextlib
import io
import json
import os
import pickle
import sys
import traceback
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Parser, dispatch, guarded
from tinyldm.nn.unet import UNetConfig
from tinyldm.training.options import train_parser
from tinyldm.training.presets import PRESETS

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=64
)
SIZE = 16  # of all pictures
SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and what it printed; a traceback is in `crash`."""

    status: int
    out: str
    err: str
    crash: str = ""


def run_command(place, line, **environment):
    """Run `train.py ...`, `sample.py ...` or `COMMAND ...` of tinyldm in a folder.

    line: the words; environment: variables that the command sees
    """
    script, *arguments = line
    out, err = io.StringIO(), io.StringIO()
    crash, status = "", 1
    before = Path.cwd()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.dict(PRESETS, toy=TINY))
        stack.enter_context(mock.patch.object(sys, "argv", [script, *arguments]))
        stack.enter_context(mock.patch.object(sys, "path", [*sys.path]))
        stack.enter_context(mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        warned = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("default")
        for kind in SILENT:
            warnings.simplefilter("ignore", kind)
        os.chdir(place)
        try:
            if script.endswith(".py"):
                status = guarded(import_module(script.removesuffix(".py")).main)
            else:
                status = dispatch(COMMANDS, [script, *arguments], prog="python -m tinyldm")
        except SystemExit as ended:
            status = ended.code
        except BaseException:
            crash = traceback.format_exc()
        finally:
            os.chdir(before)
        err.writelines(f"{w.category.__name__}: {w.message}\n" for w in warned)
    return Ended(status, out.getvalue(), err.getvalue(), crash)


def parser_of(command):
    """The parser of train.py, of sample.py or of a command of `python -m tinyldm`."""
    if command == "train.py":
        return train_parser()
    if command == "sample.py":
        return import_module("sample").parser()
    parser = Parser(prog=command)
    import_module(f"tinyldm.commands.{command}").add_arguments(parser)
    return parser


def fault(ended, *words):
    """What is wrong with the end of a command that was given something bad; "" if nothing is.

    It has to end with status 2 and one line, "error: ...", that has all of these words.
    """
    if ended.crash:
        return f"a traceback:\n{ended.crash}"
    # what a progress bar leaves is no line of ours
    lines = [line for line in ended.err.split("\n") if line and "\r" not in line]
    if ended.status != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        return f"status {ended.status}, {len(lines)} lines:\n{ended.err}\n{ended.out}"
    missing = [word for word in words if word not in lines[0]]
    if missing or not lines[0].isprintable() or "Traceback" in lines[0] or len(lines[0]) > 700:
        return f"without {missing}: {lines[0]}"
    return ""


def tree(place):
    """What a folder holds: of each path its kind, mode, size, time and, of files, the content."""
    found = {}
    for path in sorted(place.rglob("*")):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        times = stat.st_mtime_ns if path.is_file() else 0
        found[str(path.relative_to(place))] = (stat.st_mode, times, hash(content))
    return found


# ---- the folder


def picture(file, seed=0, mode="RGB", size=(SIZE, SIZE)):
    """Write a picture of noise; size is (width, height)."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    numbers = np.random.default_rng(seed).integers(0, 256 if mode == "RGB" else 29, shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers.astype(np.uint8)).save(file)


def write(file, content):
    """Write bytes, a text, or any other value as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_text(text, encoding="utf-8")


def photos(folder, table, name="metadata.jsonl"):
    """A folder of four captioned pictures, with this table."""
    for k in range(4):
        picture(folder / f"{k}.png", k)
    write(folder / name, table)


def captions(*changes):
    """The rows of a metadata.jsonl; changes: other rows in place of the first."""
    rows = [{"file_name": f"{k}.png", "text": f"a ghost {k}"} for k in range(4)]
    rows[: len(changes)] = changes
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


class Evil:
    """A pickle that would make a file if it ran."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def good_data(place):
    """A data folder of each kind of task."""
    photos(place / "photos", captions())
    names = ("red cube", "blue cube", "red sphere")
    clevr = place / "clevr"
    for k in range(3):
        picture(clevr / "images" / f"{k}.png", k)
    write(clevr / "train.json", {f"{k}.png": [names[k]] for k in range(3)})
    write(clevr / "objects.json", {name: k for k, name in enumerate(names)})
    write(clevr / "test.json", [[name] for name in names])
    land = place / "land"
    for k in range(3):
        picture(land / "train_resized" / "imgs" / f"{k}.jpg", k)
        picture(land / "train_resized" / "labels" / f"{k}.png", k, "L")
    picture(land / "val_B_labels_resized" / "t.png", 7, "L")
    write(land / "label_to_img.json", {"t.png": "0.jpg"})


def bad_data(place):
    """Data folders with one fault each, in bad/."""
    bad = place / "bad"
    tables = {
        "empty-table": "",
        "no-json": "{",
        "a-list": captions("[1, 2]"),
        "no-text": captions({"file_name": "0.png"}),
        "no-name": captions({"text": "x"}),
        "text-3": captions({"file_name": "0.png", "text": 3}),
        "name-null": captions({"file_name": None, "text": "x"}),
        "missing-image": captions({"file_name": "none.png", "text": "x"}),
        "name-nul": captions({"file_name": "a\0b.png", "text": "x"}),
        "name-line": captions({"file_name": "a\n\x1b[31mb.png", "text": "x"}),
        "name-long": captions({"file_name": "a" * 5000, "text": "x"}),
        "name-folder": captions({"file_name": ".", "text": "x"}),
        "twice": captions('{"file_name": "0.png", "file_name": "1.png", "text": "x"}'),
        "surrogate": captions('{"file_name": "0.png", "text": "\\ud800"}'),
        "deep": captions("[" * 100_000),
        "number-long": captions("9" * 5000),
    }
    for name, table in tables.items():
        photos(bad / name, table)
    photos(bad / "latin", captions().encode() + "\n\xe9".encode("latin-1"))
    photos(bad / "csv-columns", "name,caption\n0.png,x\n", "metadata.csv")
    photos(bad / "csv-ragged", "file_name,text\n0.png,a,b\n", "metadata.csv")
    photos(bad / "csv-quote", 'file_name,text\n0.png,"a\n', "metadata.csv")
    photos(bad / "csv-twice", "file_name,text,text\n0.png,a,b\n", "metadata.csv")
    (bad / "empty").mkdir()
    write(bad / "a-file", "x")
    for name, content in {"cut": None, "text": b"hello", "nothing": b""}.items():
        photos(bad / f"image-{name}", captions())
        file = bad / f"image-{name}" / "0.png"
        file.write_bytes(file.read_bytes()[:60] if content is None else content)
    write(bad / "monsters" / "train_info.json", {"0_main": {"given_description": 3}})
    picture(bad / "monsters" / "train" / "0_main_0.png")
    write(bad / "monsters-key" / "train_info.json", {})
    picture(bad / "monsters-key" / "train" / "0_main_0.png")
    write(bad / "clevr-name" / "train.json", {"0.png": ["green cube"]})
    write(bad / "clevr-name" / "objects.json", {"red cube": 0})
    picture(bad / "clevr-name" / "images" / "0.png")
    write(bad / "clevr-list" / "train.json", {"0.png": "red cube"})
    write(bad / "clevr-list" / "objects.json", {"red cube": 0})
    picture(bad / "clevr-list" / "images" / "0.png")
    write(bad / "clevr-objects" / "train.json", {"0.png": ["red cube"]})
    write(bad / "clevr-objects" / "objects.json", {"red cube": "first"})
    picture(bad / "clevr-objects" / "images" / "0.png")
    for name, change in {"map-rgb": "RGB", "map-size": (8, 8), "map-class": 200}.items():
        land = bad / name
        picture(land / "train_resized" / "imgs" / "0.jpg")
        map = land / "train_resized" / "labels" / "0.png"
        picture(map, 0, change if change == "RGB" else "L")
        if change == (8, 8):
            picture(map, 0, "L", change)
        if change == 200:
            Image.new("L", (SIZE, SIZE), change).save(map)
    picture(bad / "map-none" / "train_resized" / "imgs" / "0.jpg")
    (bad / "map-none" / "train_resized" / "labels").mkdir()


def prompt_files(place):
    """Files of prompts, a good one and many that are not, in prompts/."""
    entry = {"image_name": "0.png", "text_prompt": "a ghost"}
    files = {
        "good.json": {"0": entry},
        "good.txt": "a ghost\n",
        "empty.json": {},
        "empty.txt": "\n\n",
        "list.json": [1],
        "number.json": 3,
        "no-json.json": "{",
        "outside.json": {"0": {**entry, "image_name": "../0.png"}},
        "absolute.json": {"0": {**entry, "image_name": "/tmp/0.png"}},
        "hidden.json": {"0": {**entry, "image_name": ".0.png"}},
        "suffix.json": {"0": {**entry, "image_name": "0.exe"}},
        "long.json": {"0": {**entry, "image_name": "a" * 300 + ".png"}},
        "nul.json": {"0": {**entry, "image_name": "a\0.png"}},
        "line.json": {"0\n\x1b[2J": {"image_name": "0.png"}},
        "same.json": {"0": entry, "1": {**entry, "image_name": "0.PNG"}},
        "no-name.json": {"0": {"text_prompt": "x"}},
        "prompt-3.json": {"0": {**entry, "text_prompt": 3}},
        "constants.json": '{"0": NaN}',
        "nan.csv": "id,prompt\n0.png\n",
        "columns.csv": "id,text\n0.png,x\n",
        "prompts.xml": "<a/>",
        "latin.txt": b"caf\xe9\n",
    }
    for name, content in files.items():
        write(place / "prompts" / name, content)
    (place / "prompts" / "folder.json").mkdir()


def broken_run(place, name, change):
    """A copy of the run whose checkpoint is changed by change(folder of the checkpoint)."""
    import shutil

    shutil.copytree(place / "runs" / "good", place / "broken" / name)
    change(place / "broken" / name / "checkpoints" / "step-0000001")


def build_place(place):
    """Fill an empty folder: data, bad data, files of prompts, a run of one step, pictures."""
    good_data(place)
    bad_data(place)
    prompt_files(place)
    for k in range(3):
        picture(place / "samples" / f"{k}.png", k)
    picture(place / "mixed" / "a.png")
    picture(place / "mixed" / "b.png", size=(8, 8))
    Image.new("L", (SIZE, SIZE)).save(place / "mixed" / "black.png")
    for name, content in {"text": "hello", "nothing": b"", "pickle": pickle.dumps(Evil())}.items():
        write(place / "weights" / f"{name}.pth", content)
    torch.save({"w": Evil()}, place / "weights" / "evil.pth")
    torch.save([1, 2], place / "weights" / "list.pth")
    write(place / "weights" / "text.safetensors", "hello")
    write(place / "mine" / "notes.txt", "years of work")
    line = "train.py --data photos --vae none --text-encoder tiny --preset toy --batch-size 2"
    line += f" --max-steps 1 --warmup 0 --size {SIZE} --device cpu --precision float32"
    ended = run_command(place, [*line.split(), "--out", "runs/good"])
    assert ended.status == 0, ended
    return place
