"""Sampling: pictures under their names, each from its own seed.

A job goes on where it stopped.
"""

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageStat
from stand_ins import without_seal
from torch import nn

import sample as sample_script
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.autoencoder.pixels import load_vae
from tinyldm.cli import guarded
from tinyldm.condition import Condition
from tinyldm.data.examples import Request
from tinyldm.data.images import grid, load_image, save_image, to_bytes
from tinyldm.device import PRECISIONS
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.diffusion.unipc import UniPC
from tinyldm.errors import InputError
from tinyldm.folders import owned
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.sampling import drawing
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed
from tinyldm.sampling.folder import RECORD, read_record
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing, SampleOptions, make_solver
from tinyldm.tasks.text import CaptionEncoder
from tinyldm.training import frozen_models
from tinyldm.training.checkpoint import save_checkpoint
from tinyldm.training.frozen_models import FrozenModels
from tinyldm.training.run import SAMPLES
from tinyldm.typed import sealed

PROMPTS = [
    Request(f"{k}.png", text)
    for k, text in enumerate(["a cat", "a dog", "a cat", "a bird", "a long green eel"])
]
QUICK = Drawing(steps=3, precision="float32")


class Words:
    """A text encoder whose tokens are functions of the words alone; it counts what it is asked."""

    fingerprint, width = "words", 8

    def __init__(self):
        self.asked = Counter()

    def encode(self, texts):
        self.asked.update(texts)
        n = max(len(text.split()) for text in texts)
        tokens, mask = torch.zeros(len(texts), n, 8), torch.zeros(len(texts), n, dtype=torch.bool)
        for row, text in enumerate(texts):
            for column, word in enumerate(text.split()):
                generator = torch.Generator().manual_seed(sum(map(ord, word)))
                tokens[row, column], mask[row, column] = torch.randn(8, generator=generator), True
        return Condition(tokens=tokens, mask=mask)


class Pixels:
    """An autoencoder whose latents are the image itself, at half the size."""

    fingerprint = "pixels"

    def decode(self, latents):
        assert latents.dtype == torch.float32
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Oracle(nn.Module):
    """A denoiser that knows x0 and forgets what it is shown."""

    def __init__(self, x0):
        super().__init__()
        self.x0 = nn.Parameter(x0)

    def forward(self, x_t, t, condition=None):
        return self.x0.expand_as(x_t)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder with a checkpoint of a small random network; the frozen models are stand-ins."""
    torch.manual_seed(0)
    config = UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=(16, 32),
        attention=("none", "cross"),
        blocks=1,
        heads=2,
        groups=8,
        token_dim=8,
    )
    network = UNet(config)
    for p in network.parameters():  # output layers may start at zero: every weight must count
        nn.init.normal_(p, std=0.15)
    facts = {
        "step": 7,
        "network": asdict(config),
        "schedule": asdict(NoiseSchedule()),
        "prediction": "v",
        "vae": "pixels",
        "vae_fingerprint": "pixels",
        "text_encoder": "words",
        "text_encoder_fingerprint": "words",
        "size": [16, 16],
        "latent_shape": [3, 8, 8],
        "preview_prompts": ["a cat", "a dog"],
        "settings": {"cfg_drop": 0.1},
    }
    latents = {
        "mean": torch.zeros(3, 1, 1),
        "std": torch.full((3, 1, 1), 0.5),
        "null.tokens": torch.zeros(1, 1, 8),
        "null.mask": torch.ones(1, 1, dtype=torch.bool),
    }
    folder = tmp_path / "runs" / "pets"
    save_checkpoint(
        folder / "checkpoints" / "step-0000007",
        facts,
        {"model": network.state_dict(), "latents": latents},
    )

    def load_frozen(config, device, place):
        return FrozenModels(Pixels(), CaptionEncoder(Words()))

    monkeypatch.setattr(frozen_models, "load_frozen", load_frozen)
    monkeypatch.chdir(tmp_path)
    return folder


def test_pitfall_21_decoding_undoes_the_scaling():
    x0 = torch.rand(1, 3, 8, 8) * 2 - 1
    mean, std = (
        torch.tensor([0.1, 0.0, -0.1])[:, None, None],
        torch.tensor([0.5, 0.7, 0.9])[:, None, None],
    )
    for solver in (DPMSolver(order=3), DDIM(), DDPM()):
        images = Painter(
            network=Oracle(x0),
            latent_shape=(3, 8, 8),
            schedule=NoiseSchedule(),
            prediction="x0",
            mean=mean,
            std=std,
            vae=Pixels(),
            how=Drawing(5, solver, guidance=1.0),
        ).draw(None, [1, 2])
        expected = ((x0[0] * std + mean + 1) * 127.5).round().permute(1, 2, 0)
        for image in images:
            assert image.size == (16, 16)
            assert image.mode == "RGB"
            small = torch.tensor(np.array(image.resize((8, 8), Image.Resampling.NEAREST)).tolist())
            assert (small - expected).abs().max() <= 1


def test_the_decoder_runs_in_bfloat16_only_when_told_so():
    vae = load_vae("tiny")
    z = vae.encode(torch.rand(2, 3, 16, 16) * 2 - 1).mean
    zero, one = torch.zeros(12, 1, 1), torch.ones(12, 1, 1)
    by = {}
    for p in PRECISIONS:
        painter = Painter(
            network=nn.Identity(),
            latent_shape=(12, 4, 4),
            schedule=NoiseSchedule(),
            prediction="v",
            mean=zero,
            std=one,
            vae=vae,
            how=Drawing(precision=p),
        )
        by[p] = torch.stack([to_bytes(image) for image in painter.decode(z)]).float()
    truth = ((AutoencoderKL.load("tiny").decode(z) + 1) * 127.5).clamp(0, 255)
    for p in ("auto", "float32"):
        assert (by[p] - truth).abs().max() <= 1
    assert 0 < (by["bfloat16"] - by["float32"]).abs().mean() < 2


def test_a_picture_does_not_depend_on_the_batch(run):
    together = sample_images(run, PROMPTS, "together", how=QUICK, batch_size=5)
    alone = sample_images(run, PROMPTS, "alone", how=QUICK, batch_size=2)
    for prompt in PROMPTS:
        pair = [load_image(folder / prompt.name) for folder in (together, alone)]
        assert max(high for _, high in ImageChops.difference(*pair).getextrema()) <= 1
    # neither do two pictures of one prompt agree, nor two seeds
    pictures = {(together / prompt.name).read_bytes() for prompt in PROMPTS}
    again = sample_images(run, PROMPTS, "again", how=QUICK, seed=1)
    assert len(pictures | {(again / prompt.name).read_bytes() for prompt in PROMPTS}) == 10


def test_an_interrupted_job_goes_on_and_ends_the_same(run, monkeypatch):
    whole = sample_images(run, PROMPTS, "whole", how=QUICK, batch_size=2, strip="a cat")
    drawn = []

    def broken(image, path, **how):
        drawn.append(path.name)
        if len(drawn) == 4:
            raise OSError(28, "No space left on device", str(path))
        save_image(image, path, **how)

    monkeypatch.setattr(drawing, "save_image", broken)
    with pytest.raises(OSError, match="No space"):
        sample_images(run, PROMPTS, "part", how=QUICK, batch_size=2, strip="a cat")
    assert sorted(p.name for p in Path("part").iterdir()) == ["0.png", "1.png", "2.png", "about"]
    monkeypatch.setattr(drawing, "save_image", save_image)
    os.utime("part/1.png", (1, 1))
    part = sample_images(run, PROMPTS, "part", how=QUICK, batch_size=2, strip="a cat")
    assert os.stat("part/1.png").st_mtime == 1  # not drawn again
    assert {p.name for p in whole.iterdir()} == {p.name for p in part.iterdir()}
    for prompt in PROMPTS:
        pair = [load_image(folder / prompt.name) for folder in (whole, part)]
        assert max(high for _, high in ImageChops.difference(*pair).getextrema()) <= 1


def test_a_failing_disk_leaves_no_half_of_a_picture(tmp_path, monkeypatch):
    def half(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space"):
        save_image(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(how=Drawing(steps=4, precision="float32")), "steps 3, now 4"),
        (dict(how=Drawing(3, DDIM(), precision="float32")), "another solver"),
        (dict(seed=1), "seed 0, now 1"),
        (dict(requests=PROMPTS[:2]), "another list of prompts"),
        (dict(strip="a cat"), "strip"),
    ],
)
def test_pictures_made_otherwise_are_neither_kept_nor_replaced_in_silence(run, change, said):
    given = {"requests": PROMPTS, "out": "out", "how": QUICK, "seed": 0}
    before = (sample_images(run, **given) / "0.png").read_bytes()
    given |= change
    with pytest.raises(InputError, match=said):
        sample_images(run, **given)
    assert Path("out/0.png").read_bytes() == before
    sample_images(run, overwrite=True, **given)
    assert sample_images(run, **given) == Path("out")  # the record has changed with the pictures
    # without --out a free folder is found, and found again
    default = {**given, "out": None}
    assert sample_images(run, **default) == sample_images(run, **default) == Path("samples/pets")
    other = sample_images(run, PROMPTS[:1], how=Drawing(steps=2))
    assert other == Path("samples/pets-2")


def test_other_weights_are_another_job_but_another_place_is_not(run):
    config = run / "checkpoints" / "step-0000007" / "config.json"
    without_checksums = without_seal(config) | {"checksums": {}}
    config.write_text(json.dumps(without_checksums))  # as in older runs
    sample_images(run, PROMPTS[:1], "out", how=QUICK)
    assert sample_images(run.relative_to(Path.cwd()), PROMPTS[:1], "out", how=QUICK) == Path("out")
    file = run / "checkpoints" / "step-0000007" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    config = file.with_name("config.json")
    content = json.loads(config.read_text())
    content["checksums"][file.name] = blake2b(data, digest_size=16).hexdigest()  # as if saved so
    config.write_text(json.dumps(content))
    with pytest.raises(InputError, match="another checkpoint"):
        sample_images(run, PROMPTS[:1], "out", how=QUICK)


def test_overwrite_leaves_no_picture_of_the_job_before(run):
    """A folder is handed in as it is.

    Other files in it stay, and so does what a record names elsewhere.
    """
    out = sample_images(run, PROMPTS, "out", how=QUICK)
    Path("out/mine.txt").write_text("mine")
    record = without_seal(out / RECORD)
    record["images"] |= {"../victim": "x", "about": "x", "..": "x"}
    (out / RECORD).write_text(json.dumps(record))
    Path("victim").write_text("mine")
    sample_images(run, [Request("new.png", "a dog")], "out", how=QUICK, overwrite=True)
    assert {p.name for p in out.iterdir()} == {"new.png", "about", "mine.txt"}
    assert Path("victim").exists()


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp"])
def test_overwrite_knows_a_picture_that_was_drawn_by_what_it_says(run, ending):
    sample_images(run, [Request(f"old.{ending}", "a cat")], "out", how=QUICK)
    new = [Request(f"new.{ending}", "a dog")]
    sample_images(run, new, "out", how=QUICK, overwrite=True)
    assert {p.name for p in Path("out").iterdir()} == {f"new.{ending}", "about"}


@pytest.mark.parametrize("name", ["mine.png", "mine.txt", "link.png", "pipe.png"])
@pytest.mark.parametrize("again", [False, True])
def test_overwrite_leaves_what_a_forged_record_names(run, name, again):
    """Whoever can write a record can write its checksum; again: the new job has the name too."""
    out = sample_images(run, PROMPTS, "out", how=QUICK)
    before = {p.name: p.read_bytes() for p in out.glob("*.png")}
    path = out / name
    if name == "link.png":
        path.symlink_to("0.png")
    elif name == "pipe.png":
        os.mkfifo(path)
    else:
        Image.new("RGB", (8, 8)).save(path, format="PNG")
    record = without_seal(out / RECORD)
    record["images"][name] = "x"
    (out / RECORD).write_text(json.dumps(sealed(record)))
    asked = [Request(name if again and name != "mine.txt" else "new.png", "a dog")]
    with pytest.raises(InputError, match=rf"out/{name}: about/samples\.json names it, but it does"):
        sample_images(run, asked, "out", how=QUICK, overwrite=True)
    assert os.path.lexists(path)
    assert {p: (out / p).read_bytes() for p in before} == before
    assert read_record(out / RECORD)["images"] == record["images"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_else_is_kept(run, overwrite):
    Path("out").mkdir()
    Path("out/1.png").write_text("mine")
    with pytest.raises(InputError, match=r"out/1.png: is already there"):
        sample_images(run, PROMPTS, "out", how=QUICK, overwrite=overwrite)
    assert [p.name for p in Path("out").iterdir()] == ["1.png"]


def test_two_jobs_do_not_draw_into_one_folder(run):
    with owned(Path("out"), SAMPLES):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="out: another process is drawing there"):
                sample_images(run, PROMPTS, "out", how=QUICK, overwrite=overwrite)
        assert [p.name for p in Path("out/about").iterdir()] == [".lock"]
    sample_images(run, PROMPTS, "out", how=QUICK)


@pytest.mark.parametrize("killed", [False, True])
def test_a_job_that_fails_before_its_first_picture_is_in_nobodys_way(run, monkeypatch, killed):
    def fails(*arguments, **options):
        if killed:
            record = Path("out/about/samples.json").read_bytes()
            shutil.copytree("out", "kept")
            Path("kept/about/samples.json").write_bytes(record)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("tinyldm.sampling.job.draw_requests", fails)
        with pytest.raises(MemoryError):
            sample_images(run, PROMPTS, "out", how=QUICK)
    assert not Path("out").exists()
    if killed:
        Path("kept").rename("out")
    assert sample_images(run, PROMPTS, "out", how=QUICK, seed=1) == Path("out")


def test_what_a_killed_job_left_half_written_goes(run):
    sample_images(run, PROMPTS, "out", how=QUICK)
    Path("out/1.png").rename("out/.tinyldm-01234567-1.png")
    Path("out/about/.tinyldm-01234567-grid.png").write_bytes(b"half")
    sample_images(run, PROMPTS, "out", how=QUICK)
    assert not list(Path("out").rglob(".tinyldm-*"))
    assert Path("out/1.png").is_file()


def test_an_about_that_is_a_link_is_not_followed(run):
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/about").symlink_to(Path("elsewhere").resolve())
    with pytest.raises(InputError, match="out/about: is a symbolic link"):
        sample_images(run, PROMPTS, "out", how=QUICK)
    assert list(Path("elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "../up.png",
        "/root.png",
        "a/b.png",
        "..",
        "",
        "a\\b.png",
        "c:x.png",
        "a.exe",
        ".hidden.png",
        "0.PNG",
        "\ud800.png",
    ],
)
def test_names_that_are_refused(run, name):
    with pytest.raises(InputError, match=r"the name .*(refused|twice)|not Unicode"):
        sample_images(run, [PROMPTS[0], Request(name, "a cat")], "out", how=QUICK)
    assert not Path("out").exists()


def test_each_distinct_text_is_encoded_once():
    words, texts = Words(), [f"word {k % 100}" for k in range(300)]
    condition = encode_prompts(CaptionEncoder(words), [*texts, "a b c d"])
    assert set(words.asked.values()) == {1}
    assert len(condition) == 301
    alone = Words().encode([texts[123]])
    assert torch.equal(condition[[123]].tokens[:, :2], alone.tokens)
    assert condition.mask[123].tolist() == [True, True, False, False]


def test_noise_seeds_differ_and_fit_the_generator():
    seeds = [picture_seed(seed, index) for seed in range(20) for index in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**32 for s in seeds)


def test_solvers_by_name():
    assert make_solver("dpm++") == DPMSolver(order=2)
    assert make_solver("dpm++", order=3) == DPMSolver(order=3)
    assert make_solver("sde-dpm++") == DPMSolver(order=2, sde=True)
    assert make_solver("dpm").form == "eps"
    assert make_solver("ddim", eta=0.5) == DDIM(eta=0.5)
    assert make_solver("ddpm") == DDPM()
    assert make_solver("unipc") == UniPC(2) != make_solver("dpm++")
    assert make_solver("unipc", order=3) == UniPC(3)
    assert make_solver("heun") == Heun()


@pytest.mark.parametrize(
    "options",
    [
        dict(name="ddim", order=2),
        dict(name="heun", order=2),
        dict(name="unipc", eta=1.0),
        dict(name="dpm++", eta=1.0),
        dict(name="ddpm", eta=0.0),
        dict(name="dpm++", order=0),
    ],
)
def test_solver_options_that_would_be_ignored_are_refused(options):
    with pytest.raises(InputError, match="--"):
        make_solver(**options)


def test_strip_shows_ten_steps_of_both(run):
    out = sample_images(run, [], "out", how=Drawing(steps=20, precision="float32"), strip="a cat")
    strip = load_image(out / "about/strip.png")
    assert strip.size == (10 * 18 + 2, 2 * 18 + 2)
    with Image.open(out / "about/strip.gif") as film:
        assert film.n_frames == 10
        assert film.size == (20, 38)
        film.seek(9)
        last = ImageChops.difference(film.convert("RGB"), strip.crop((9 * 18, 0, 10 * 18 + 2, 38)))
    assert max(ImageStat.Stat(last).mean) < 8  # a GIF has 256 colours
    assert not (out / "about/grid.png").exists()
    few = sample_images(run, [], "few", how=Drawing(steps=4, precision="float32"), strip="a cat")
    assert load_image(few / "about/strip.png").size == (4 * 18 + 2, 2 * 18 + 2)


def test_wide_pictures_of_a_strip_say_their_t(run, monkeypatch):
    """The last step leads to clean data; the one before it to the first timestep of `linspace`."""
    sheets = []
    monkeypatch.setattr(drawing, "LABELLED", 16)
    monkeypatch.setattr(drawing, "grid", lambda *args, **how: sheets.append(how) or grid(*args))
    how = Drawing(steps=3, spacing="linspace", precision="float32")
    sample_images(run, [], "out", how=how, strip="a cat")
    assert sheets[0]["words"] == ["t = 499", "t = 0", "the end", "x0", "x0", "x0"]


def test_the_strip_ends_in_the_picture(run):
    out = sample_images(run, [Request("0.png", "a cat")], "out", how=QUICK, strip="a cat")
    strip = load_image(out / "about/strip.png")
    for row in (0, 1):  # after the last step x_t is x0
        last = strip.crop((2 + 2 * 18, 2 + row * 18, 18 + 2 * 18, 18 + row * 18))
        assert (
            max(
                high
                for _, high in ImageChops.difference(last, load_image(out / "0.png")).getextrema()
            )
            <= 1
        )


def test_frozen_models_of_other_weights_are_refused(run, monkeypatch):
    from tinyldm.frozen.text import TextEncoder

    monkeypatch.undo()
    vae = nn.Identity()
    vae.fingerprint, vae.factor = "another", 2
    monkeypatch.setattr(AutoencoderKL, "load", lambda name: vae)
    monkeypatch.setattr(TextEncoder, "load", lambda name, device, padded: Words())
    with pytest.raises(InputError, match="pixels: is not the vae"):
        sample_images(run, PROMPTS, run / "out", how=QUICK)


def command(*arguments):
    """sample.py with these arguments, in this process; returns its exit status."""

    def draw():
        options = sample_script.parser().parse_args(list(arguments))
        sample_script.draw(SampleOptions(**vars(options)))

    return guarded(draw)


def test_the_command_needs_no_options(run, capsys):
    assert command("--steps", "2") == 0
    assert (
        "2 images of pets in samples/pets; samples/pets/about/grid.png" in capsys.readouterr().out
    )
    record = json.loads(Path("samples/pets/about/samples.json").read_text())
    assert record["images"] == {"00-a-cat.png": "a cat", "01-a-dog.png": "a dog"}
    assert record["steps"] == 2


def test_prompts_of_a_file(run, tmp_path, capsys):
    entry = {
        "image_name": "0_main.png",
        "given_description": "a cat",
        "action_description": "",
        "text_prompt": "a cat",
    }
    (tmp_path / "test.json").write_text(json.dumps({"0_main": entry}))
    assert (
        command("--prompts", "test.json", "--out", "new/folder", "--steps", "2", "--solver", "ddim")
        == 0
    )
    assert load_image("new/folder/0_main.png").size == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "0"], "--steps 0: expected a whole number from 1"),
        (["--steps", "1001"], "sampling takes between 1 and 1000 steps, got 1001"),
        (["--run", "nowhere"], "nowhere: no such folder"),
        (["--run", "."], "holds no checkpoint"),
        (["--batch-size", "0"], "--batch-size 0: expected a whole number from 1"),
        (["--seed", "-1"], "--seed -1: expected a whole number from 0"),
        (["--guidance", "1", "--guidance-rescale", "0.5"], "would change nothing"),
        (["--guidance", "nan"], "--guidance nan: expected a number from -1,000"),
        (["--guidance-map", "nan"], "--guidance-map nan: expected a number from -1,000"),
        (
            ["--guidance-interval", "2", "1"],
            "--guidance-interval 2 1: expected 0 <= low < high",
        ),
        (["--guidance-rescale", "2"], "--guidance-rescale 2: expected a number from 0 to 1"),
        (["--device", "meta"], "--device meta"),
        (
            ["--prompt", "caf\udce9"],
            "not Unicode text",
        ),  # as a shell passes bytes that are not UTF-8
        (["--strip", "caf\udce9"], "--strip: "),
        (["--solver", "ddim", "--order", "2"], "--order 2: ddim has no order"),
        (["--order", "4"], "--order 4: expected a whole number from 1 to 3"),
        (["--eta", "1"], "--eta 1: belongs to ddim"),
        (["--solver", "ddim", "--eta", "7"], "--eta 7: expected a number from 0 to 1"),
        (["--prompts", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, capsys, arguments, said):
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not Path("samples").exists()


def test_a_run_that_was_never_without_a_condition_is_not_guided(run, capsys):
    file = run / "checkpoints" / "step-0000007" / "config.json"
    file.write_text(json.dumps(without_seal(file) | {"settings": {"cfg_drop": 0}}))
    assert command("--guidance", "2") == 2
    assert "--cfg-drop 0" in capsys.readouterr().err
    assert command("--steps", "2") == 0
    assert json.loads(Path("samples/pets/about/samples.json").read_text())["guidance"] == 1
