"""Whatever a file holds, its reader returns something or says in one line what is wrong with it.

One value of a right file is replaced by any other; docs/attack does more, with all of a real run.
"""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.cli import guarded
from tinyldm.data.images import load_image
from tinyldm.frozen.image import ROLE, pixel_statistics
from tinyldm.pages.ranking import summary
from tinyldm.pages.report import scores
from tinyldm.scores.distances import read_moments
from tinyldm.scores.evaluator import Evaluator, find_judge
from tinyldm.tasks.base import find_task, read_examples, read_requests
from tinyldm.tasks.segmentation import load_map
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.log import read_log
from tinyldm.weights import read_weights

CHECKPOINT = Path(__file__).parent / "assets/format_1/oldest/checkpoints/step-0000005"
NAMES = ("red cube", "blue cube")
ROW = {"checkpoint": "step-0000002", "guidance": 1.0, "steps": 2, "solver": "dpm++"}
SCORE = {"n": 3, "extractor": "x", "preprocessing": "y", "value": 1.5}

DOCUMENTS = {  # a right file of each kind, beside which the checkpoint's own config stands
    "scores.json": {"images": "x", "scores": {"clip-fd": SCORE}, "versions": {"torch": "2"}},
    "sweep.json": {
        "asked": {"prompts": {"0.png": "x"}, "metrics": ["clip-t"], "seed": 0, "reference": None},
        "advice": "python sample.py",
        "rows": [
            {**ROW, "step": 2, "made": "0", "scores": {"clip-t": 0.5}},
            {**ROW, "guidance": 2.0, "step": 2, "made": "0", "scores": {"clip-t": 0.25}},
            {
                **{**ROW, "step": 2, "made": "0", "scores": {"clip-t": 0.125}},
                **{"ema_length": 0.1, "guide": "weak", "guide_scale": 2.0},
            },
        ],
        "readers": {"clip-t": {"n": 1, "extractor": "x"}},
    },
    "preprocessor_config.json": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]},
    "test.json": {
        "a": {"image_name": "a.png", "text_prompt": "red", "action_description": ""},
        "b": {"image_name": "b.png", "text_prompt": "blue", "action_description": ""},
    },
    "labels.json": [["red cube"], ["red cube", "blue cube"]],
    "label_to_img.json": {"0.png": "0.png", "1.png": "1.png"},
    "train.json": {"0.png": ["red cube"], "1.png": ["blue cube"]},
    "objects.json": {"red cube": 0, "blue cube": 1},
    "metadata.jsonl": {"file_name": "0.png", "text": "one"},
    "evaluator/config.json": {
        "task": "labels",
        "names": list(NAMES),
        "size": [8, 8],
        "images": 2,
        "held_out": {"accuracy": 0.5},
    },
    "vae/config.json": {
        **AutoencoderConfig(
            block_out_channels=(4,), layers_per_block=1, norm_num_groups=1
        ).to_dict(),
        "_class_name": "AutoencoderKL",
    },
    "config.json": json.loads((CHECKPOINT / "config.json").read_text()),
}

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([10**400, "../x", "x" * 300, "\x1b[2J", "\ud800", "a\nb", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a right file of each kind, and what they name."""
    folder = tmp_path_factory.mktemp("readers")
    for name in ("evaluator", "vae", "moments"):
        (folder / name).mkdir()
    for k in range(2):
        Image.new("L", (8, 8), k).save(folder / f"{k}.png")
    for file in CHECKPOINT.iterdir():
        shutil.copyfile(file, folder / file.name)
    for name, content in DOCUMENTS.items():
        (folder / name).write_text(json.dumps(content))
    net = find_judge("labels", NAMES).network(len(NAMES))
    Evaluator("labels", net, NAMES, (8, 8)).save(folder / "evaluator")
    shape = AutoencoderConfig.from_dict(dict(DOCUMENTS["vae/config.json"]))
    AutoencoderKL(shape).save_pretrained(folder / "vae")
    np.save(folder / "moments" / "test_mu.npy", np.zeros(2))
    np.save(folder / "moments" / "test_sigma.npy", np.eye(2))
    (folder / "log.csv").write_text("step,loss,lr,grad_norm,images_per_second\n1,0.5,1e-3,2,9.5\n")
    (folder / "prompts.csv").write_text("id,prompt\na.png,red\nb.png,blue\n")
    (folder / "prompts.txt").write_text("red\nblue\n")
    return folder


def checkpoint_of(folder):
    """The checkpoint and the task that its config names."""
    checkpoint = load_checkpoint(folder)
    return checkpoint, task_of(checkpoint.config)


def examples_of(folder, *names):
    """The examples of a data folder that has only these files and the images."""
    data = folder / f"data-{names[0]}"
    data.mkdir(exist_ok=True)
    for name in (*names, "0.png", "1.png"):
        shutil.copyfile(folder / name, data / name)
    return read_examples(data)


READERS = {
    "scores.json": lambda folder: scores(folder / "scores.json"),
    "sweep.json": lambda folder: summary(folder / "sweep.json"),
    "preprocessor_config.json": lambda folder: pixel_statistics(str(folder), ROLE),
    "test.json": lambda folder: read_requests(folder / "test.json"),
    "labels.json": lambda folder: read_requests(folder / "labels.json", find_task("labels")),
    "label_to_img.json": lambda folder: read_requests(folder / "label_to_img.json"),
    "train.json": lambda folder: examples_of(folder, "train.json", "objects.json"),
    "objects.json": lambda folder: examples_of(folder, "objects.json", "train.json"),
    "metadata.jsonl": lambda folder: examples_of(folder, "metadata.jsonl"),
    "evaluator/config.json": lambda folder: Evaluator.load(folder / "evaluator"),
    "vae/config.json": lambda folder: AutoencoderKL.load(folder / "vae"),
    "config.json": checkpoint_of,
}


def replaced(document, place, value):
    """The document with one of its values replaced; the places are counted through."""
    spots = []

    def visit(node):
        children = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in children:
            spots.append((node, key))
            if isinstance(child, (dict, list)):
                visit(child)

    document = json.loads(json.dumps(document))
    visit(document)
    node, key = spots[place % len(spots)]
    node[key] = value
    return document


def well_said(read, folder):
    """Whether a command that reads this succeeds, or ends with status 2 and one line."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = guarded(read, folder)
    lines = said.getvalue().splitlines()
    return status == 0 or (status == 2 and len(lines) == 1 and lines[0].startswith("error: "))


@pytest.mark.parametrize("name", READERS)
def test_a_value_that_is_anything(place, name):
    """Of a JSON file."""
    file = place / name
    before = json.dumps(DOCUMENTS[name])
    file.write_text(before)
    READERS[name](place)  # as it should be

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 200), ANYTHING)
    def damaged(spot, value):
        content = json.dumps(replaced(DOCUMENTS[name], spot, value))
        file.write_text(content)
        assert well_said(READERS[name], place)

    try:
        damaged()
    finally:
        file.write_text(before)


BYTES = {
    "moments/test_mu.npy": lambda folder: read_moments(folder / "moments"),
    "moments/test_sigma.npy": lambda folder: read_moments(folder / "moments"),
    "0.png": lambda folder: (load_image(folder / "0.png"), load_map(folder / "0.png")),
    "latents.safetensors": lambda folder: read_weights(folder / "latents.safetensors"),
    "log.csv": lambda folder: read_log(folder / "log.csv"),
    "prompts.csv": lambda folder: read_requests(folder / "prompts.csv"),
    "prompts.txt": lambda folder: read_requests(folder / "prompts.txt"),
    "test.json": lambda folder: read_requests(folder / "test.json"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_anything(place, name):
    """In the place of others, in the middle of a right file."""
    file = place / name
    before = file.read_bytes()
    BYTES[name](place)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, len(before)), st.binary(max_size=30), st.integers(0, 40))
    def damaged(start, inserted, dropped):
        file.write_bytes(before[:start] + inserted + before[start + dropped :])
        assert well_said(BYTES[name], place)

    try:
        damaged()
    finally:
        file.write_bytes(before)
