"""Runs that adapt a run, through train.py, sample.py and the commands. Frozen models stand in."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stand_ins import SMALL_RUN, Lengths, without_seal, work_in

import sample as sample_script
import train as train_script
from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch, guarded
from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNet
from tinyldm.pages.report import commands
from tinyldm.sampling.settings import SampleOptions
from tinyldm.training.checkpoint import (
    checkpoints,
    find_checkpoint,
    load_checkpoint,
    read_config,
    settings_of,
)
from tinyldm.training.options import parse_options
from tinyldm.training.settings import TrainSettings
from tinyldm.training.start import FromRun


def write_pictures(folder, seed=0):
    """Four captioned pictures of noise, of 32x32."""
    Path(folder).mkdir()
    for k in range(4):
        g = torch.Generator().manual_seed(10 * seed + k)
        pixels = torch.randint(0, 256, (32, 32, 3), generator=g, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(f"{folder}/{k}.png")
    lines = [json.dumps({"file_name": f"{k}.png", "text": "x" * k}) for k in range(4)]
    Path(folder, "metadata.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two sets of pictures, data and others, and a run of three steps, runs/first."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        write_pictures("data")
        write_pictures("others", seed=1)
        train(out="runs/first", preset="tiny-test", max_steps=3, lr=0.01)
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    work_in(tmp_path, monkeypatch)


def train(**given):
    """train.py; a run that is resumed or adapted brings its own size."""
    train_script.train({**SMALL_RUN, "lr": 0.01, **given})


def adapt(**given):
    train(**{"start": "runs/first", "lora": 2, "data": "others", "out": "runs/lora", **given})


def resume(**given):
    train_script.train({"resume": True, "out": "runs/lora", **given})


def draw(run="runs/lora", out="drawn", **options):
    """The pictures that sample.py draws of two prompts."""
    asked = {"prompt": ["x", "xxx"], "steps": 2, "device": "cpu", **options}
    sample_script.draw(SampleOptions(run=str(run), out=out, **asked))
    return [load_image(file).tobytes() for file in sorted(Path(out).glob("*.png"))]


def model(run):
    return load_file(find_checkpoint(run) / "model.safetensors")


def test_the_first_line_says_what_is_trained(place, capsys):
    adapt(max_steps=1)
    assert "runs/lora: LoRA of rank 2 for a tiny-test network of 0.00" in capsys.readouterr().out


def test_factors_are_trained_and_saved_apart_and_the_base_is_not_touched(place):
    before = {file: file.read_bytes() for file in Path("runs/first").rglob("*") if file.is_file()}
    adapt(max_steps=3)
    names = list(model("runs/lora"))
    assert names
    assert all(name.startswith("unet.") and ".lora_" in name for name in names)
    assert any(
        weight.abs().max() > 0 for name, weight in model("runs/lora").items() if "_B" in name
    )
    config, base = (read_config(find_checkpoint(run)) for run in ("runs/lora", "runs/first"))
    assert config["network"]["base"] == base["network"]
    same = load_file(find_checkpoint("runs/first") / "latents.safetensors")
    ours = load_file(find_checkpoint("runs/lora") / "latents.safetensors")
    assert all(torch.equal(same[name], part) for name, part in ours.items())  # and no others
    assert before == {
        file: file.read_bytes() for file in Path("runs/first").rglob("*") if file.is_file()
    }


def test_it_draws_the_base_at_scale_0_and_something_else_at_1(place):
    adapt(max_steps=3, lora_layers="all", lr=0.3)
    base = draw("runs/first", "base")
    assert draw(out="none", lora_scale=0.0) == base
    assert draw(out="whole") != base
    with pytest.raises(InputError, match="holds images of another job"):
        draw(out="whole", lora_scale=0.5)
    with pytest.raises(InputError, match="--lora-scale 2: .* adapts no other"):
        draw("runs/first", "twice", lora_scale=2.0)


def test_a_run_of_no_steps_worth_draws_the_pictures_of_its_base(place):
    adapt(max_steps=1, lr=1e-30)
    assert draw() == draw("runs/first", "base")


def test_it_is_resumed_bit_for_bit(place):
    adapt(out="runs/whole", max_steps=4, lr_schedule="constant")
    adapt(max_steps=2, lr_schedule="constant")
    resume(max_steps=4)
    for name in ("model", "training"):
        whole, parts = (
            load_file(find_checkpoint(run) / f"{name}.safetensors")
            for run in ("runs/whole", "runs/lora")
        )
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(InputError, match="--lora 3: the run was started with 2"):
        resume(max_steps=5, lora=3)
    with pytest.raises(InputError, match="--from runs/first: expected no --resume"):
        resume(max_steps=5, start="runs/first")


def test_its_report_says_how_to_train_it_again(place):
    adapt(max_steps=2, lora_alpha=3.0, lora_layers="all")
    line, *_ = commands(Path("runs/lora"), read_config(find_checkpoint("runs/lora")))
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "train.py")
    train_script.train({**parse_options(words), "out": "runs/again"})
    again = model("runs/again")
    assert all(torch.equal(weight, again[name]) for name, weight in model("runs/lora").items())


def test_merged_it_is_an_ordinary_run_that_draws_the_same(place, capsys):
    adapt(max_steps=3, lora_layers="all", lora_alpha=3.0, lr=0.3)
    assert dispatch(COMMANDS, ["merge", "runs/lora", "--out", "runs/merged"]) == 0
    merged, lora = load_checkpoint("runs/merged"), load_checkpoint("runs/lora")
    assert type(merged.network) is UNet
    assert "base" not in merged.config
    with torch.no_grad():
        x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 500.0])
        condition = Lengths().encode(["x", "xx"])
        assert torch.equal(merged.network(x, t, condition), lora.network(x, t, condition))
    assert draw("runs/merged", "a") == draw("runs/lora", "b")
    adapt(start="runs/merged", out="runs/again")  # a base like any other
    assert dispatch(COMMANDS, ["merge", "runs/first", "--out", "runs/no"]) == 2
    assert "expected a run of train.py --lora" in capsys.readouterr().err
    assert not Path("runs/no").exists()


def test_convert_writes_the_published_file(place):
    adapt(max_steps=3, lora_alpha=3.0, lr=0.3)
    assert dispatch(COMMANDS, ["convert", "runs/lora", "--out", "published"]) == 0
    assert [file.name for file in Path("published").glob("[!.]*")] == [
        "pytorch_lora_weights.safetensors"
    ]
    factors = model("runs/lora")
    for name, weight in load_file("published/pytorch_lora_weights.safetensors").items():
        expected = factors[name] * (1.5 if "lora_B" in name else 1)
        assert torch.equal(weight, expected)


def test_a_base_that_moved_is_found_beside_it_or_where_one_says(place):
    adapt()
    drawn = draw()
    Path("runs").rename("moved")  # both
    assert draw("moved/lora", "together") == drawn
    Path("moved/first").rename("elsewhere")
    with pytest.raises(InputError, match=r"step-0000003, which is not there; .* --base RUN"):
        draw("moved/lora", "lost")
    assert draw("moved/lora", "told", base="elsewhere") == drawn
    with pytest.raises(InputError, match="--base moved/lora: holds no checkpoint with the weights"):
        draw("moved/lora", "wrong", base="moved/lora")
    shutil.copytree("elsewhere", "moved/first")
    (newest,) = checkpoints(Path("moved/first"))
    other = model("moved/first")
    from safetensors.torch import save_file

    save_file({name: weight + 1 for name, weight in other.items()}, newest / "model.safetensors")
    with pytest.raises(InputError, match="which holds other weights by now"):
        draw("moved/lora", "changed")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": None}, "--lora 2: expected --from RUN"),
        ({"lora": 0}, "--from .*first.*: expected --lora RANK"),
        ({"start": "nowhere"}, "nowhere: no such folder"),
        ({"lora_layers": "nothing"}, "--lora-layers nothing: no layer has such a name; there are"),
        ({"lora_layers": "(", "data": "nowhere"}, "--lora-layers .: not a regular expression"),
        ({"prediction": "eps"}, "--prediction eps: .*first.*, which is adapted, has v"),
        ({"size": (64, 64)}, "--size 64x64: .* has 32x32"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_run(place, given, said):
    with pytest.raises(InputError, match=said) as caught:
        adapt(**given)
    assert "\n" not in str(caught.value)
    assert not Path("runs/lora").exists()


def test_an_adapted_run_is_no_base(place):
    adapt()
    with pytest.raises(InputError, match="adapts another run itself; merge them first"):
        adapt(start="runs/lora", out="runs/more")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base", {"checkpoint": 3}, r"config\.json: base"),
        ("network", {"base": {}, "lora": {"rank": 2}}, r"config\.json: network"),
        (
            "network",
            {"base": {}, "lora": {"rank": 2, "alpha": 1.0, "layers": ["conv_on"]}},
            "network.lora.layers: expected layers of the base",
        ),
        (
            "network",
            {"base": {}, "lora": {"rank": 10**9, "alpha": 1.0, "layers": ["conv_in"]}},
            "does not fit its config",
        ),
    ],
)
def test_what_a_config_says_wrongly_is_told(place, key, value, said):
    adapt()
    file = find_checkpoint("runs/lora") / "config.json"
    file.write_text(json.dumps({**without_seal(file), key: value}))
    with pytest.raises(InputError, match=said):
        draw()


def test_the_options_are_those_of_the_help(place, monkeypatch, capsys):
    words = "train.py --lora 2 --lora-layers conv --lora-alpha 1 --from runs/first --max-steps 1"
    monkeypatch.setattr("sys.argv", f"{words} --data others --device cpu --out runs/said".split())
    assert guarded(train_script.main) == 0
    config = read_config(find_checkpoint("runs/said"))
    assert config["settings"]["lora_alpha"] == 1
    assert config["network"]["lora"]["layers"][0] == "conv_in"


def test_on_the_toy_set_an_adapter_is_trained_as_on_other_data(place):
    """The toy set's own defaults are for a whole network."""
    base = load_checkpoint("runs/first")
    settings = FromRun(base, settings_of(base.config)).settings(TrainSettings(), {})
    assert (settings.optimizer, settings.t_sampling, settings.lr) == ("adamw", "uniform", 1e-3)
    assert (settings.lr_schedule, settings.loss_weights) == ("cosine", "plain")
