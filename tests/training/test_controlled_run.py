"""train.py --controlnet --task outline on a run that knows captions alone, and sample.py then."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stand_ins import SMALL_RUN, AveragingVae, Lengths, work_in

import sample as sample_script
import train as train_script
from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.sampling.settings import SampleOptions
from tinyldm.tasks.base import find_task, read_examples
from tinyldm.tasks.outline import OutlineEncoder, outline
from tinyldm.training.checkpoint import find_checkpoint, read_config


class Words(Lengths):
    """A stand-in for the text encoder inside of OutlineEncoder."""

    def encode(self, texts):
        return self.stored(texts)


def encoder_of(config):
    """What stands in for the encoder of captions, or of outlines with them."""
    if config["condition"]["task"] == "outline":
        return OutlineEncoder(Words(), (8, 8))
    return Lengths()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with captioned squares in data/ and a run of them, runs/first."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch, encoder_of)
        Path("data").mkdir()
        for k in range(4):
            picture = Image.new("RGB", (32, 32), "white")
            picture.paste((200, 40 * k, 0), (4 * k, 4, 4 * k + 12, 20))
            picture.save(f"data/{k}.png")
        lines = [json.dumps({"file_name": f"{k}.png", "text": "x" * k}) for k in range(4)]
        Path("data/metadata.jsonl").write_text("\n".join(lines))
        train(out="runs/first", preset="tiny-test", max_steps=3, lr=0.01)
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    work_in(tmp_path, monkeypatch, encoder_of)


def train(**given):
    train_script.train({**SMALL_RUN, "lr": 0.01, **given})


def control(**given):
    asked = {"start": "runs/first", "controlnet": True, "task": "outline", "out": "runs/control"}
    train(**asked, **given)


def draw(run, out, prompts, **options):
    how = {"steps": 2, "device": "cpu", "out": out, "run": run, "prompt": prompts, **options}
    sample_script.draw(SampleOptions(**how))
    return [load_image(file).tobytes() for file in sorted(Path(out).glob("*.png"))]


def test_at_the_start_it_draws_what_its_base_draws(place):
    control(max_steps=1, lr=1e-30)
    drawn = draw("runs/control", "b", ["data/1.png | x", "data/3.png | xxx"])
    assert drawn == draw("runs/first", "a", ["x", "xxx"])


def test_it_learns_apart_from_its_base_and_follows_the_picture(place):
    before = {file: file.read_bytes() for file in Path("runs/first").rglob("*") if file.is_file()}
    control(max_steps=4, lr=0.05)
    assert read_config(find_checkpoint("runs/control"))["network"]["controlnet"] == {
        "map_channels": 16
    }
    weights = load_file(find_checkpoint("runs/control") / "model.safetensors")
    assert all(name.startswith(("encoder.", "zero")) for name in weights)
    assert weights["zero_middle.weight"].abs().max() > 0
    assert weights["encoder.conv_in.weight"][:, 12:].abs().max() > 0  # the maps are read
    one, other = (draw("runs/control", f"s{k}", [f"data/{k}.png | xx"]) for k in (0, 3))
    assert one != other
    assert before == {
        file: file.read_bytes() for file in Path("runs/first").rglob("*") if file.is_file()
    }


def test_it_is_resumed_bit_for_bit(place):
    control(max_steps=2, lr_schedule="constant")
    train_script.train({"resume": True, "out": "runs/control", "max_steps": 4})
    resumed = load_file(find_checkpoint("runs/control") / "training.safetensors")
    control(max_steps=4, lr_schedule="constant", overwrite=True)
    whole = load_file(find_checkpoint("runs/control") / "training.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": None}, "--controlnet: expected --from RUN"),
        ({"lora": 2}, "expected --lora RANK with it, or --controlnet"),
        ({"lora_layers": "all"}, "--lora-layers all: would be ignored"),
        ({"task": "text"}, "the data has no maps that .*first"),
        ({"task": "landscape"}, "--task landscape: data is for --task text"),
    ],
)
def test_bad_input_is_one_line(place, given, said):
    asked = {"start": "runs/first", "controlnet": True, "task": "outline", "out": "runs/no"}
    with pytest.raises(InputError, match=said) as caught:
        train(**{**asked, **given})
    assert "\n" not in str(caught.value)
    assert not Path("runs/no").exists()


def test_bad_prompts_are_told(place):
    control(max_steps=1)
    for prompt, said in [("nowhere.png | x", "nowhere.png: no such"), ("| x", None)]:
        if said is None:  # a caption alone: no outlines
            assert draw("runs/control", "alone", [prompt])
            continue
        with pytest.raises(InputError, match=said):
            draw("runs/control", "none", [prompt])
    with pytest.raises(InputError, match="--lora-scale 2: belongs to runs of --lora"):
        draw("runs/control", "none", ["data/1.png"], lora_scale=2.0)


def test_a_step_from_black_to_white_is_an_outline_of_255_and_a_flat_picture_has_none():
    half = Image.new("RGB", (8, 8), "white")
    half.paste("black", (0, 0, 4, 8))
    lines = np.asarray(outline(half))
    assert (lines[:, 3:5] == 255).all()
    assert not np.delete(lines, [3, 4], axis=1).any()
    assert not np.asarray(outline(Image.new("RGB", (8, 8), "red"))).any()
    ramp = Image.fromarray(np.arange(0, 80, 10, dtype=np.uint8).repeat(8).reshape(8, 8))
    assert (np.asarray(outline(ramp.convert("RGB")))[1:-1, 1:-1] == 20).all()  # 10 a row, twice


def test_training_and_sampling_see_the_same_maps(place):
    from tinyldm.data.images import Augmentation
    from tinyldm.data.latents import open_or_build

    task, examples = read_examples("data", task="outline")
    encoder = OutlineEncoder(Words(), (8, 8))
    cache = open_or_build(examples, AveragingVae(), encoder, 32, Augmentation(flip=False))
    generator = torch.Generator().manual_seed(0)
    _, condition = cache.batch(torch.arange(4), generator)
    asked = encoder.encode([task.prompt(f"{k}.png | {'x' * k}", Path("data")) for k in range(4)])
    assert torch.equal(condition.maps, asked.maps)
    assert condition.maps.shape == (4, 16, 8, 8)
    assert condition.maps.max() == 1
    assert torch.equal(condition.tokens, asked.tokens)
    assert cache.null.maps.shape == (1, 16, 8, 8)
    assert not cache.null.maps.any()


def test_prompts_are_texts_that_can_be_typed_and_folders_of_pictures(place):
    task = find_task("outline")
    sketch = task.prompt("0.png | a square", Path("data"))
    assert str(sketch) == "data/0.png | a square"
    assert task.text(sketch, Path("data")) == "0.png | a square"
    assert task.text(sketch, Path("runs")) == f"{Path('data/0.png').resolve()} | a square"
    assert [r.name for r in task.requests(Path("data"))] == [f"{k}.png" for k in range(4)]
    assert [r.name for r in task.requests(Path("data/2.png"))] == ["2.png"]
    with pytest.raises(InputError, match="runs: no images"):
        task.requests(Path("runs"))
