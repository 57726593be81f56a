"""The two commands, on a small toy set, as a user calls them; and what they say to bad input.

What does its work, is stopped or fails in the middle runs as a process. Where a command refuses
its options, one process of each shows how it ends, and the other lines run in this one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fresh
import numpy as np
import pytest
from bad_inputs import fault, run_command
from PIL import Image

from tinyldm.tasks.base import read_requests
from tinyldm.toy.monsters import write_toy

ROOT = Path(__file__).parent.parent
SMALL = [
    "--vae",
    "tiny",
    "--text-encoder",
    "tiny",
    "--preset",
    "toy",
    "--size",
    "32",
    "--batch-size",
    "4",
    "--max-steps",
    "3",
    "--warmup",
    "1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small toy set, its cache and one trained run."""
    folder = tmp_path_factory.mktemp("place")
    write_toy(folder / "toy", train_monsters=2)
    trained = command(folder, "train.py", "--data", "toy", "--out", "runs/first", *SMALL)
    assert trained.returncode == 0, trained.stderr
    return folder


def environment(folder):
    """A cache of its own and no network."""
    return {
        **os.environ,
        "TINYLDM_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def command(folder, script, *arguments, largest_file=None):
    """The script as a process in folder, ended."""
    words = [ROOT / script, *arguments]
    return fresh.run(words, folder, environment(folder), largest_file=largest_file)


def refused(done, *words):
    """Status 2 and one line on stderr with all of these words."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line and "|" not in line]  # bars aside
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def refuses(folder, script, *arguments, words):
    """The same of a command line that runs in this process."""
    ended = run_command(folder, [script, *arguments], TINYLDM_CACHE=str(folder / "cache"))
    assert fault(ended, *words) == ""


@pytest.mark.slow
def test_train_leaves_a_whole_run(place):
    run = place / "runs" / "first"
    assert (run / "previews" / "step-0000003.png").is_file()
    assert (run / "log.csv").is_file()
    config = json.loads((run / "checkpoints" / "step-0000003" / "config.json").read_text())
    page = (run / "report.html").read_text()
    assert "3 of 3, finished" in page
    assert config["machine"] in page
    assert "--max-steps 3" in page
    assert config["vae"] == "tiny"
    assert config["size"] == [32, 32]
    assert len(config["preview_prompts"]) == 16


def pixels(file):
    """A picture as numbers from 0 to 255."""
    return np.asarray(Image.open(file), float)


@pytest.mark.slow
def test_sample_draws_every_prompt_under_its_name_and_goes_on_where_it_stopped(place):
    arguments = ("sample.py", "--steps", "2", "--prompts", "toy/test.json", "--out", "drawn")
    prompts = read_requests(place / "toy" / "test.json")[:6]
    few = {
        k: v
        for k, v in json.loads((place / "toy" / "test.json").read_text()).items()
        if v["image_name"] in {p.name for p in prompts}
    }
    (place / "few.json").write_text(json.dumps(few))
    arguments = tuple("few.json" if a == "toy/test.json" else a for a in arguments)
    done = command(place, *arguments)
    assert done.returncode == 0, done.stderr
    images = {p.name: place / "drawn" / p.name for p in prompts}
    for file in images.values():
        with Image.open(file) as image:
            assert image.size == (32, 32)
            assert image.mode == "RGB"
    assert (place / "drawn" / "about" / "grid.png").is_file()
    first, *others = images.values()
    before, times = pixels(first), [f.stat().st_mtime_ns for f in others]
    first.unlink()
    assert command(place, *arguments).returncode == 0
    # drawn again alone, and the same up to bfloat16, which rounds a batch of one differently;
    # the others are far away
    assert (
        abs(pixels(first) - before).mean()
        < 1
        < 5
        < min(abs(pixels(f) - before).mean() for f in others)
    )
    assert [f.stat().st_mtime_ns for f in others] == times
    before = first.read_bytes()
    again = command(place, *arguments, "--seed", "1")
    refused(again, "drawn", "--overwrite")
    assert first.read_bytes() == before


@pytest.mark.slow
def test_resume_goes_on_and_nothing_is_overwritten_unasked(place):
    again = ["train.py", "--data", "toy", "--out", "runs/first", *SMALL]
    refused(command(place, *again), "runs/first", "--overwrite")
    shutil.copytree(place / "runs" / "first", place / "runs" / "second")
    done = command(place, "train.py", "--resume", "--out", "runs/second", "--max-steps", "4")
    assert done.returncode == 0, done.stderr
    assert (place / "runs" / "second" / "checkpoints" / "step-0000004").is_dir()
    other = ["train.py", "--resume", "--out", "runs/second", "--lr", "7"]
    refuses(place, *other, words=["--lr 7", "0.001"])
    over = ["train.py", "--data", "toy", "--out", "toy", "--overwrite", *SMALL]
    refuses(place, *over, words=["toy", "no run folder"])
    assert (place / "toy" / "train_info.json").is_file()


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_resume_goes_on(place):
    env = environment(place)
    run, log = place / "runs" / "stopped", place / "runs" / "stopped" / "log.csv"
    arguments = [*SMALL, "--max-steps", "100000", "--data", "toy", "--out", str(run)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=place,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 600  # of a machine that is very busy
    while (
        not (log.is_file() and len(log.read_text().splitlines()) > 2)
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in output
    (checkpoint,) = (run / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert step == len(log.read_text().splitlines()) - 1
    done = command(place, "train.py", "--resume", "--out", str(run), "--max-steps", str(step + 1))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], ["nowhere", "no such folder"]),
        (["--cfg-drop", "1.5"], ["--cfg-drop", "1.5", "from 0 to 1"]),
        (["--preset", "huge"], ["--preset", "huge", "base"]),
        (["--size", "63"], ["--size", "63x63", "multiples of 4"]),
        (["--size", "big"], ["--size", "big"]),
        (["--epochs", "0"], ["--epochs", "0"]),
        (["--vae", "nobody/nothing"], ["nobody/nothing", "--vae tiny"]),
        (["--text-encoder", "nobody/nothing"], ["nobody/nothing", "--text-encoder tiny"]),
        (["--device", "warp"], ["--device", "warp"]),
        (["--colour", "red"], ["--colour"]),
        (["--resume", "--out", "toy"], ["toy", "no checkpoint"]),
    ],
)
def test_train_says_what_is_wrong(place, arguments, words):
    data = [] if "--data" in arguments or "--resume" in arguments else ["--data", "toy"]
    tiny = [] if "--resume" in arguments else ["--vae", "tiny", "--text-encoder", "tiny"]
    refuses(place, "train.py", *data, *tiny, *arguments, words=words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], ["steps", "0"]),
        (["--steps", "1001"], ["steps", "1001", "1000"]),
        (["--run", "toy"], ["toy", "no checkpoint"]),
        (["--run", "nowhere"], ["nowhere"]),
        (["--prompts", "nowhere.json"], ["nowhere.json"]),
        (["--eta", "1"], ["--eta", "ddim"]),
    ],
)
def test_sample_says_what_is_wrong(place, arguments, words):
    refuses(place, "sample.py", "--out", "never", *arguments, words=words)
    assert not (place / "never").exists()


@pytest.mark.slow
def test_names_that_leave_the_folder_are_refused(place):
    entry = {
        "image_name": "../outside.png",
        "given_description": "x",
        "action_description": "",
        "text_prompt": "x",
    }
    (place / "evil.json").write_text(json.dumps({"a": entry}))
    asked = ["--steps", "2", "--prompts", "evil.json", "--out", "evil"]
    refuses(place, "sample.py", *asked, words=["../outside.png"])
    assert not (place / "outside.png").exists()


@pytest.mark.slow
def test_bad_images_are_named_or_left_out(place):
    data = place / "broken"
    shutil.copytree(place / "toy", data)
    broken = sorted((data / "train").glob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    line = ["train.py", "--data", "broken", "--out", "runs/broken", *SMALL]
    refuses(place, *line, words=[broken.name])
    assert not (place / "runs" / "broken").exists()
    done = command(place, *line, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "(1 left out)" in done.stdout
    assert "left out: " in done.stdout
    assert broken.name in done.stdout


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line(place):
    refuses(place, "sample.py", "--steps", "2", "--out", "/proc/out", words=["/proc/out"])
    line = ["train.py", "--data", "toy", "--out", "/proc/run", *SMALL]
    refuses(place, *line, words=["/proc/run"])


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(place):
    """A limit on the size of files makes the write of the checkpoint fail as a full disk does."""
    done = command(
        place,
        "train.py",
        "--data",
        "toy",
        "--out",
        "runs/full",
        *SMALL,
        largest_file=1_000_000,
    )
    refused(done, "step-0000003", "File too large")
    assert not list((place / "runs" / "full" / "checkpoints").glob("*"))
