"""load, train and Model: it draws what sample.py draws, and what diffusers draws of its folders."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import tinyldm
from tinyldm.cli import Parser
from tinyldm.commands import convert
from tinyldm.data.examples import Request
from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.keywords import parse_keywords
from tinyldm.model import Model, Pictures
from tinyldm.sampling.drawing import picture_seed
from tinyldm.sampling.following import followed
from tinyldm.sampling.settings import SampleOptions
from tinyldm.toy.monsters import write_toy
from tinyldm.training.options import train_parser
from tinyldm.weights import read_weights, write_weights

ROOT = Path(__file__).parent.parent
PROMPTS = ["a green ghost with horns", "a red ghost", "a blue slime"]
QUICK = {"steps": 3, "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small toy set, and a run in it that train() made, which is returned too."""
    folder = tmp_path_factory.mktemp("place")
    write_toy(folder / "toy", train_monsters=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TINYLDM_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        model = tinyldm.train(
            data="toy",
            vae="tiny",
            text_encoder="tiny",
            size="32x32",
            batch_size=np.int64(4),
            max_steps=3,
            warmup=1,
            precision="float32",
            device="cpu",
            flip=False,
            out=None,
        )
    return folder, model


@pytest.fixture
def inside(place, monkeypatch):
    monkeypatch.chdir(place[0])
    return place[0]


@pytest.fixture
def model(inside):
    return tinyldm.load("runs/toy-1", device="cpu")


def test_train_takes_the_options_of_train_py_and_returns_what_load_returns(place):
    folder, model = place
    assert isinstance(model, Model)
    config = model.checkpoint.config
    assert config["step"] == 3
    assert config["settings"]["batch_size"] == 4
    assert config["settings"]["flip"] is False
    assert model.size == (32, 32)
    assert model.checkpoint.path == Path("runs/toy-1/checkpoints/step-0000003")
    assert (folder / model.checkpoint.path / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "how",
    [{}, {"solver": "sde-dpm++", "order": 1, "guidance": 2.0, "guidance_interval": (0.5, 5)}],
    ids=["default", "options"],
)
def test_a_call_draws_the_pictures_of_sample_py(model, inside, how):
    """The files that sample.py writes, pixel by pixel."""
    interval = {k: list(v) if isinstance(v, tuple) else v for k, v in how.items()}
    options = SampleOptions(
        run="runs/toy-1", prompt=PROMPTS, seed=7, out=f"drawn-{len(how)}", **QUICK, **interval
    )
    sample.draw(options)
    files = sorted((inside / f"drawn-{len(how)}").glob("*.png"))
    expected = [load_image(file) for file in files]
    drawn = model(PROMPTS, seed=7, steps=3, precision="float32", **how)
    assert [each.tobytes() for each in drawn] == [each.tobytes() for each in expected]
    assert len({each.tobytes() for each in drawn}) == 3
    assert drawn[0].size == (32, 32)


@pytest.mark.parametrize(
    "how", [{}, {"strength": 0.5}, {"mask": "mask.png"}], ids=["default", "strength", "mask"]
)
def test_drawing_on_a_picture_is_sample_py_with_init(model, inside, how):
    """From files and from PIL images alike."""
    picture, mask = Image.radial_gradient("L").resize((48, 40)), Image.new("L", (48, 40))
    mask.paste(255, (0, 0, 24, 40))
    picture.save("init.png")
    mask.save("mask.png")
    out = f"edited-{'-'.join(how)}"
    sample.draw(
        SampleOptions(
            run="runs/toy-1", prompt=PROMPTS[:2], seed=7, out=out, init="init.png", **QUICK, **how
        )
    )
    expected = [load_image(file).tobytes() for file in sorted((inside / out).glob("*.png"))]
    from_files = model(PROMPTS[:2], seed=7, steps=3, precision="float32", init="init.png", **how)
    assert [each.tobytes() for each in from_files] == expected
    opened = {**how, "mask": mask} if "mask" in how else how
    drawn = model(PROMPTS[:2], seed=7, steps=3, precision="float32", init=picture, **opened)
    assert [each.tobytes() for each in drawn] == expected
    steps = list(
        model.stream(PROMPTS[:2], seed=7, steps=3, precision="float32", init=picture, **opened)
    )
    assert {step.count for step in steps} == {len(steps)}
    assert len(steps) == {"": 2, "strength": 2, "mask": 3}["".join(how)]  # of 3, rounded


def test_what_can_not_be_drawn_on(model):
    picture = Image.new("RGB", (32, 32))
    with pytest.raises(InputError, match="need init"):
        model("a red ghost", strength=0.5)
    with pytest.raises(InputError, match="strength 1.5: expected a number from 0 to 1"):
        model("a red ghost", init=picture, strength=1.5)
    with pytest.raises(InputError, match="mask: has 9x9 pixels, expected 32x32 as init has"):
        model("a red ghost", init=picture, mask=Image.new("L", (9, 9), 255))
    with pytest.raises(InputError, match="mask: nothing is white"):
        model("a red ghost", init=picture, mask=Image.new("L", (32, 32)))


def test_one_prompt_is_a_list_of_one_and_prompts_may_be_typed(model):
    (alone,) = model("a red ghost", steps=2, seed=3)
    assert alone.tobytes() == model(["a red ghost", "a blue slime"], steps=2, seed=3)[0].tobytes()
    assert model("a red ghost", steps=2, seed=4)[0].tobytes() != alone.tobytes()
    nothing = model(steps=2, seed=3)  # the empty prompt: any picture
    assert len(nothing) == 1
    assert nothing[0].tobytes() != alone.tobytes()
    assert len(model.text_encoder.encode("a red ghost")) == 1


def test_pictures_are_a_list_that_a_notebook_shows(model):
    drawn = model(PROMPTS, steps=1)
    assert isinstance(drawn, list)
    png = drawn._repr_png_()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (2 * 34 + 2, 2 * 34 + 2)  # two by two pictures, 2 pixels around each
    assert Pictures()._repr_png_() is None


def test_a_stream_ends_in_what_a_call_draws(model):
    steps = list(model.stream(PROMPTS[:2], steps=4, seed=5))
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert {step.count for step in steps} == {4}
    drawn = model(PROMPTS[:2], steps=4, seed=5)
    assert [p.tobytes() for p in steps[-1].noisy] == [p.tobytes() for p in drawn]
    assert torch.equal(steps[-1].x, steps[-1].x0)  # the last step leads to its estimate of x0
    assert not torch.equal(steps[0].x, steps[0].x0)
    assert len(steps[0].pictures) == 2
    assert steps[0]._repr_png_()[:4] == b"\x89PNG"


def test_the_steps_of_a_stream_are_those_of_ddim(model):
    """Each x_s is alpha_s x0 + sigma_s eps, with the eps that x_t and x0 leave (2010.02502)."""
    levels = model.schedule.grid(3)
    x = torch.randn(12, 8, 8, generator=torch.Generator().manual_seed(picture_seed(2, 0)))
    steps = model.stream("a red ghost", steps=3, seed=2, solver="ddim", precision="float32")
    for step, (now, nxt) in zip(steps, pairwise(levels), strict=True):
        eps = (x - now.alpha * step.x0[0]) / now.sigma
        x = nxt.alpha * step.x0[0] + nxt.sigma * eps
        torch.testing.assert_close(step.x[0], x, rtol=1e-4, atol=1e-4)


def test_a_stream_checks_its_options_at_once_and_can_be_left(model):
    with pytest.raises(InputError, match="--steps 0"):
        model.stream("a red ghost", steps=0)
    for step in model.stream("a red ghost", steps=50):
        if step.index == 1:
            break
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_following_hands_over_calls_errors_and_the_end():
    def job(callback):
        for k in range(3):
            trace.append(k)
            callback(k, -k)
        raise ValueError("at the end")

    trace = []
    calls = followed(job)
    assert next(calls) == (0, 0)
    assert trace == [0]  # nothing is computed ahead
    assert [next(calls), next(calls)] == [(1, -1), (2, -2)]
    with pytest.raises(ValueError, match="at the end"):
        next(calls)
    trace = []
    calls = followed(job)
    next(calls)
    calls.close()
    assert trace == [0]


def test_latents_and_pictures(model):
    """encode is the posterior's mean, normalised; decode brings back what the autoencoder keeps."""
    (picture,) = model("a red ghost", steps=2)
    x0 = model.encode(picture)
    assert x0.shape == (12, 8, 8)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        mean = model.vae.encode(pixels).mean
        again = model.vae(pixels)[0]
    known = model.checkpoint
    torch.testing.assert_close(x0 * known.std + known.mean, mean[0])
    decoded = np.array(model.decode(x0), dtype=float)
    expected = (again.permute(1, 2, 0).numpy().clip(-1, 1) + 1) * 127.5
    assert np.abs(decoded - expected).max() < 0.51  # rounded to whole numbers
    both = model.encode([picture, picture.resize((99, 50))])
    torch.testing.assert_close(both[0], x0)
    assert both.shape == (2, 12, 8, 8)
    torch.testing.assert_close(model.encode(pixels), x0[None])
    assert len(model.decode(both)) == 2


def test_a_picture_may_be_a_file_or_have_transparency(model, inside):
    Image.new("RGB", (64, 40), "white").save("white.png")
    clear = Image.new("RGBA", (64, 40), (255, 255, 255, 255))
    torch.testing.assert_close(model.encode("white.png"), model.encode(clear))


def test_what_a_model_shows(model):
    assert model.network is model.checkpoint.network
    assert not model.network.training
    assert isinstance(model.schedule, tinyldm.NoiseSchedule)
    assert isinstance(model.vae, tinyldm.AutoencoderKL)
    for name in ("__call__", "stream", "encode", "decode", "network", "schedule", "size", "facts"):
        assert getattr(Model, name).__doc__
    for part in ("vae", "text_encoder", "task", "checkpoint"):
        assert f"\n{part}:" in inspect.getdoc(Model)  # without the indent, which 3.13 takes away


def test_a_notebook_says_a_model_and_a_step_in_a_line(model):
    """Not the weights, as a dataclass would."""
    assert repr(model) == (
        "Model(runs/toy-1/checkpoints/step-0000003 after 3 steps: 32x32 pixels, cosine schedule, "
        "predicts v)"
    )
    step = next(model.stream(PROMPTS[:2], steps=4))
    assert repr(step) == "Step(index=0, count=4, x and x0: (2, 12, 8, 8))"


# ---- options as keywords


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"max_step": 5}, TypeError, "no option 'max_step'; did you mean 'max_steps'?"),
        ({"colour": "red"}, TypeError, "no option 'colour'"),
        ({"max_steps": 0}, InputError, "--max-steps 0: expected a whole number from 1"),
        ({"max_steps": 5.5}, InputError, "--max-steps 5.5: expected a whole number"),
        ({"batch_size": True}, InputError, "--batch-size True: expected a whole number"),
        ({"resume": "yes"}, InputError, "--resume yes: expected True or False"),
        ({"prediction": "y"}, InputError, "--prediction: invalid choice: 'y'"),
        ({"size": (64, 48)}, InputError, "expected pixels such as 64, or WIDTHxHEIGHT"),
        ({"data": "nowhere", "out": "new"}, InputError, "nowhere: no such folder"),
        ({"data": ""}, InputError, "expected a value, got an empty text"),
    ],
)
def test_keywords_are_checked_as_on_a_command_line(inside, given, error, message):
    with pytest.raises(error) as caught:
        tinyldm.train(**given)
    assert message in str(caught.value)
    assert not Path("new").exists()


def test_keywords_mean_what_the_command_line_means():
    given = {
        "size": "96x64",
        "lr": 0.1 + 0.2,
        "flip": False,
        "compile": False,
        "skip_bad": True,
        "data": Path("a b"),
        "out": "-odd",
        "resume": None,
    }
    line = ["--size", "96x64", "--lr", "0.30000000000000004", "--no-flip", "--skip-bad"]
    line += ["--out=-odd", "--data", "a b"]
    typed = train_parser().parse_args(line)
    assert parse_keywords(train_parser(), given) == typed
    parser = Parser(prog="sample.py")
    parser.add_argument("--guidance-interval", nargs=2, type=float)
    assert parse_keywords(parser, {"guidance_interval": [0.5, 2]}).guidance_interval == [0.5, 2]


def test_a_call_names_the_nearest_option(model):
    with pytest.raises(TypeError, match="no option 'spacin'; did you mean 'spacing'"):
        model("a red ghost", spacin="karras")
    with pytest.raises(TypeError, match="no option 'out'"):
        model("a red ghost", out="folder")
    with pytest.raises(InputError, match="no prompts"):
        model([])


# ---- where models come from


@pytest.mark.parametrize("source", ["runs/nothing", "nowhere", "runs"])
def test_a_model_that_is_not_there(inside, source):
    with pytest.raises(InputError, match=source):
        tinyldm.load(source, device="cpu")


def published(folder, source):
    """Lay the files of a folder out as huggingface_hub's cache has them, as user/model."""
    snapshot = folder / "models--user--model" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(Path(source).resolve(), target_is_directory=True)
    (folder / "models--user--model" / "refs").mkdir()
    (folder / "models--user--model" / "refs" / "main").write_text("a" * 40)


def test_a_hub_name(inside, model, tmp_path):
    """From the cache of the hub, in a process that has no network."""
    published(tmp_path / "hub", "runs/toy-1")
    (expected,) = model("a red ghost", steps=2, precision="float32")
    script = (
        "import tinyldm; m = tinyldm.load('user/model', device='cpu'); "
        "m('a red ghost', steps=2, precision='float32')[0].save('hub.png'); "
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert load_image("hub.png").tobytes() == expected.tobytes()


def test_a_name_that_the_hub_cannot_give(inside, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="hf download nobody/nothing") as caught:
        tinyldm.load("nobody/nothing", device="cpu")
    assert "tiny" not in str(caught.value).replace("tinyldm", "")


def converted(tmp_path):
    """The folder of diffusers' that the run becomes."""
    parser = ArgumentParser()
    convert.add_arguments(parser)
    out = tmp_path / "folder"
    convert.run(parser.parse_args(["runs/toy-1", "--out", str(out)]))
    return out


def test_a_run_that_became_a_folder_of_diffusers(inside, model, tmp_path):
    again = tinyldm.load(converted(tmp_path), device="cpu")
    assert again.schedule == model.schedule
    how = {"steps": 3, "seed": 2, "precision": "float32"}
    one, other = model(PROMPTS, **how), again(PROMPTS, **how)
    assert [p.tobytes() for p in one] == [p.tobytes() for p in other]


@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_folder_of_diffusers_without_its_statistics_is_one_line(inside, tmp_path, name):
    out = converted(tmp_path)
    file = out / "tinyldm" / "latents.safetensors"
    tensors = read_weights(file)
    del tensors[name]
    write_weights(file, tensors)
    with pytest.raises(InputError, match=f"latents.safetensors: .*{name}"):
        tinyldm.load(out, device="cpu")


@pytest.mark.parametrize("size", [[64], [8, 8, 8], 0, "64", None])
def test_a_pipeline_of_no_size_is_one_line(tmp_path, size):
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"sample_size": size}))
    with pytest.raises(InputError, match="config.json: sample_size: "):
        tinyldm.load(tmp_path, device="cpu")


needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs diffusers, as an oracle"
)


def random_pipeline():
    """A small text-to-image pipeline of diffusers, with random weights and the tiny CLIP."""
    import diffusers
    from transformers import AutoTokenizer, CLIPTextModel

    torch.manual_seed(0)
    clip = ROOT / "tinyldm" / "assets" / "clip"
    tokenizer = AutoTokenizer.from_pretrained(clip)
    text_encoder = CLIPTextModel.from_pretrained(clip, dtype=torch.float32)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.7,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=text_encoder.config.hidden_size,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_draws_as_in_diffusers(tmp_path):
    """A text-to-image pipeline that diffusers has written, with random weights, drawn by both."""
    pipeline = random_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    seeds = [picture_seed(3, k) for k in range(2)]
    noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds]
    expected = pipeline(
        PROMPTS[:2],
        num_inference_steps=5,
        guidance_scale=4.0,
        latents=torch.stack(noise),
        output_type="np",
    ).images
    model = tinyldm.load(tmp_path, device="cpu")
    assert model.size == (16, 16)
    how = {"steps": 5, "guidance": 4, "seed": 3, "solver": "ddim", "precision": "float32"}
    drawn = model(PROMPTS[:2], **how)
    for one, other in zip(drawn, expected, strict=True):
        error = np.abs(np.array(one) - 255 * other).max()
        assert error < 0.6, error  # rounded to whole numbers
    assert np.std(expected) > 0.02  # no flat pictures

    (tmp_path / "vae").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no vae/ beside its unet/"):
        tinyldm.load(tmp_path)


def test_sets_of_labels_are_plain_strings_too(tmp_path):
    from tinyldm.tasks.labels import LabelEncoder, Labels

    encoder = LabelEncoder(["red cube", "blue sphere"])
    told = encoder.encode("red cube, blue sphere")
    typed = encoder.encode([Labels(("red cube", "blue sphere"))])
    assert torch.equal(told.tokens, typed.tokens)
    assert Request("a.png", "red cube").text == "red cube"


def test_the_code_of_docs_python_runs(inside, monkeypatch):
    """Block by block, as printed, with the run of this module in place of the reader's."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    (inside / "data").mkdir(exist_ok=True)
    (inside / "data" / "toy").symlink_to(inside / "toy")  # where the default training writes it
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (inside / "ghost.png").is_file()
    assert names["again"][0].size == names["inside"][0].size == (32, 32)
    assert names["latents"].shape == names["prediction"].shape[1:] == (12, 8, 8)
    assert names["kind"] == "v"
    assert names["model"].checkpoint.config["step"] == 1
