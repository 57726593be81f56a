"""Damaged files of a small real run: each is one line that names it, or does no harm."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mutants import byte_mutants, json_mutants, tensor_mutants
from PIL import Image
from safetensors.torch import load_file, save_file
from stand_ins import SMALL_RUN, AveragingVae, Lengths, without_seal

import sample as sample_script
import train as train_script
from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.autoencoder.published import read_config as read_vae_config
from tinyldm.errors import InputError
from tinyldm.frozen.image import pixel_statistics
from tinyldm.frozen.style import ROLE
from tinyldm.nn.unet import UNetConfig
from tinyldm.pages.ranking import summary
from tinyldm.pages.report import read_steps, scores, write_report
from tinyldm.sampling.folder import read_record_file
from tinyldm.sampling.settings import SampleOptions
from tinyldm.scores.evaluator import Evaluator, find_judge
from tinyldm.tasks.base import read_requests
from tinyldm.tasks.text import TextTask
from tinyldm.training import frozen_models
from tinyldm.training.presets import PRESETS

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=6
)
NEWEST = Path("run/checkpoints/step-0000002")


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A place to work in, with frozen models that cost nothing."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("mutants")
        patch.chdir(place)
        patch.setenv("TINYLDM_CACHE", str(place / "cache"))
        patch.setitem(PRESETS, "tiny-test", TINY)
        patch.setattr(frozen_models, "load_vae", lambda name, device: AveragingVae())
        patch.setattr(TextTask, "encoder", lambda self, facts, area, device: Lengths())
        yield place


@pytest.fixture(scope="module")
def whole(patched):
    """The folder of a run of two checkpoints, which stays as it is."""
    Path("data").mkdir()
    lines = []
    for k in range(4):
        Image.new("RGB", (32, 32), (60 * k, 0, 99)).save(f"data/{k}.png")
        lines.append(json.dumps({"file_name": f"{k}.png", "text": "x" * k}))
    Path("data/metadata.jsonl").write_text("\n".join(lines))
    given = {**SMALL_RUN, "preset": "tiny-test", "save_every": 1, "sample_every": 100}
    train_script.train({"out": "whole", **given})
    return patched / "whole"


@pytest.fixture
def run(whole):
    shutil.rmtree("run", ignore_errors=True)
    shutil.copytree(whole, "run")
    return Path("run")


def draw():
    shutil.rmtree("drawn", ignore_errors=True)
    options = SampleOptions(run=str(NEWEST), steps=1, precision="float32", device="cpu")
    sample_script.draw(SampleOptions(**{**vars(options), "out": "drawn", "batch_size": 4}))


def resume():
    train_script.train({"out": "run", "resume": True, "max_steps": 3, "device": "cpu"})


def outcome(label, job, *arguments):
    """Whether the job was refused as bad input; any other error fails."""
    try:
        job(*arguments)
        return False
    except InputError:
        return True
    except BaseException as error:
        pytest.fail(f"{label}: {type(error).__name__}: {error}")


def test_a_damaged_config_is_refused_or_harmless(run):
    """A drawing looks at most of it, a report at the rest."""
    file = NEWEST / "config.json"
    config = without_seal(file)
    refused = []
    for number, (label, text) in enumerate(json_mutants(config, each=1)):
        if number % 2:
            continue
        file.write_text(text)
        refused.append(outcome(label, draw))
        if not number % 12:
            outcome(label, write_report, run)
    assert sum(refused) > len(refused) / 4
    assert not all(refused)
    for label, content in byte_mutants(json.dumps(config).encode()):
        file.write_bytes(content)
        outcome(label, draw)


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("model", ["conv_in.weight", "mid_block.resnets.0.norm1.bias"]),
        ("latents", ["mean", "std", "null.tokens", "null.mask"]),
    ],
)
def test_damaged_weights_are_refused(run, name, damaged):
    file = NEWEST / f"{name}.safetensors"
    tensors = load_file(file)
    for label, wrong in tensor_mutants(tensors, damaged):
        save_file(wrong, file)
        assert outcome(label, draw) or label == ("null.mask", "missing"), label
    save_file(tensors, file)
    for label, content in byte_mutants(file.read_bytes()):
        file.write_bytes(content)
        outcome(label, draw)
    if name == "model":  # by name, with the one before it
        said = r"step-0000002/model.safetensors: .*; the checkpoint before it is .*step-0000001$"
        file.write_bytes(b"no")
        with pytest.raises(InputError, match=said):
            draw()


def test_a_damaged_training_state_is_refused(run, whole):
    config = NEWEST / "config.json"
    config.write_text(json.dumps(without_seal(config) | {"checksums": {}}))
    file = NEWEST / "training.safetensors"
    tensors = load_file(file)
    damaged = ["exp_avg_sq.conv_in.weight"]
    for label, wrong in tensor_mutants(tensors, damaged):
        save_file(wrong, file)
        assert outcome(label, resume), label
    assert not (run / "checkpoints" / "step-0000003").exists()
    save_file(tensors, file)
    resume()


@pytest.mark.parametrize("sizes", [{"channels": [10**9] * 2}, {"blocks": [10**6] * 2}])
def test_absurd_sizes_are_refused_before_anything_is_built(run, sizes):
    file = NEWEST / "config.json"
    config = without_seal(file)
    config["network"] |= sizes
    file.write_text(json.dumps(config))
    for job in (draw, resume):
        with pytest.raises(InputError, match=r"model.safetensors: does not fit its config, which"):
            job()


SCORED = {
    "checkpoint": "step-1",
    "guidance": 2.0,
    "steps": 5,
    "solver": "ddim",
    "step": 1,
    "made": "abc",
    "scores": {"clip-t": 0.3, "clip-fd": 20.0},
}
SWEEP = {
    "asked": {"prompts": {"a.png": "a"}, "metrics": ["clip-t", "clip-fd"], "seed": 0},
    "advice": "python sample.py",
    "rows": [SCORED, {**SCORED, "guidance": 3.0, "steps": 6}],
    "readers": {"clip-t": {"n": 1, "extractor": "CLIP"}},
}
SCORES = {"scores": {"fid": {"value": None, "n": 3, "extractor": "Inception"}}, "versions": {}}
JUDGE = {"task": "labels", "names": ["a", "b"], "size": [8, 8], "images": 3, "held_out": {"k": 1.0}}
COLOURS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "crop_size": {"height": 8}}
VAE = {**AutoencoderConfig(block_out_channels=(32, 32)).to_dict(), "_class_name": "AutoencoderKL"}
READERS = {
    "sweep.json": (SWEEP, summary),
    "scores.json": (SCORES, scores),
    "samples.json": ({"images": {"a.png": "a"}, "seed": 1}, read_record_file),
    "preprocessor_config.json": (COLOURS, lambda file: pixel_statistics(str(file.parent), ROLE)),
    "vae.json": (VAE, read_vae_config),
    "test.json": ({"k": {"image_name": "a.png", "text_prompt": "a"}}, read_requests),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_what_it_cannot_use(tmp_path, name):
    content, read = READERS[name]
    file = tmp_path / name
    file.write_text(json.dumps(content))
    read(file)
    refused = []
    for label, text in json_mutants(content):
        file.write_text(text)
        refused.append(outcome(label, read, file))
    assert sum(refused) > len(refused) / 3


def test_a_damaged_evaluator_is_refused(tmp_path):
    """Above all one whose weights are not numbers, which would find everything right."""
    net = find_judge("labels", ("a", "b")).network(2)
    Evaluator("labels", net, ("a", "b"), (8, 8), 3, {"k": 1.0}).save(tmp_path)
    Evaluator.load(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for label, wrong in tensor_mutants(tensors, ["head.weight"]):
        save_file(wrong, file)
        assert outcome(label, Evaluator.load, tmp_path), label
    save_file(tensors, file)
    for label, text in json_mutants(JUDGE):
        (tmp_path / "config.json").write_text(text)
        outcome(label, Evaluator.load, tmp_path)


def test_a_damaged_autoencoder_is_refused(tmp_path):
    config = AutoencoderConfig(block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1)
    AutoencoderKL(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    entries = json.loads(file.read_text())
    for label, text in json_mutants(entries, each=4):
        file.write_text(text)
        outcome(label, AutoencoderKL.load, tmp_path)
    file.write_text(json.dumps(entries))
    weights = tmp_path / "model.safetensors"
    for label, wrong in tensor_mutants(load_file(weights), ["encoder.conv_in.weight"]):
        save_file(wrong, weights)
        assert outcome(label, AutoencoderKL.load, tmp_path), label


def test_damaged_rows_of_a_log_are_left_out(tmp_path):
    file = tmp_path / "log.csv"
    rows = b"step,loss,lr,grad_norm,images_per_second\n1,0.5,1e-3,0.1,9\n2,nan,1,1,1\n3,0.4,1,x\n"
    file.write_bytes(rows + b"\xff\xfe\x00,,\n" + b'"' * 200_000 + b"\n-4,1,1,1,1\n5,0.3,1,1,1")
    assert [row["step"] for row in read_steps(file)] == [1, 5]


def test_a_training_that_goes_astray_saves_nothing_of_it(run, monkeypatch):
    monkeypatch.setattr("tinyldm.training.trainer.learning_rate", lambda *given: 1e308)
    before = sorted(Path("run/checkpoints").iterdir())
    given = {**SMALL_RUN, "preset": "tiny-test", "save_every": 1}
    with pytest.raises(InputError, match="^astray: step 1: .* is not finite; .*try a lower --lr$"):
        train_script.train({**given, "out": "astray"})
    assert not list(Path("astray").glob("checkpoints/step-*"))
    assert sorted(Path("run/checkpoints").iterdir()) == before


def test_pictures_that_are_not_finite_are_not_written(run, monkeypatch):
    def decode(self, latents):
        return torch.full((len(latents), 3, 4, 4), float("nan"))

    monkeypatch.setattr(AveragingVae, "decode", decode)
    with pytest.raises(InputError, match="pictures are not finite numbers with guidance 3"):
        draw()
    assert not list(Path("drawn").glob("*.png"))
