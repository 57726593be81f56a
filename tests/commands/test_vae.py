"""python -m tinyldm vae train: bit-for-bit resume, what it leaves, what it refuses."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file

from tinyldm.__main__ import COMMANDS
from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.cli import dispatch
from tinyldm.errors import InputError
from tinyldm.folders import check_free, owned
from tinyldm.scores.reconstruction import to_batch
from tinyldm.stage_one.progress import AUTOENCODER
from tinyldm.stage_one.recipe import Recipe
from tinyldm.stage_one.training import StageOne, train_autoencoder

CONFIG = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
}
CRITICISED = {"adversarial": 0.5, "perceptual": 0.2, "critic_from": 2}


def pictures(n=24, size=16):
    colours = np.random.default_rng(0).integers(0, 255, (n, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (n, size, size, 3)).copy()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for k, picture in enumerate(pictures()):
        Image.fromarray(picture).save(tmp_path / "photos" / f"p_{k}_0.png")
    return tmp_path / "photos"


class StopAt:
    """Asks to stop at a step, as a signal does."""

    def __init__(self, step):
        self.calls, self.step = 0, step

    @property
    def requested(self):
        self.calls += 1
        return self.calls >= self.step


@pytest.mark.parametrize("critic", [{}, CRITICISED])
def test_resume_is_bit_for_bit(tmp_path, critic):
    config, held_out = AutoencoderConfig(**CONFIG), {"held": pictures(3)}
    recipe = Recipe(8, batch_size=4, warmup=2, precision="float32", **critic)

    def trained(out, start=config, images=None, recipe=recipe, **how):
        images = pictures() if images is None else images
        return train_autoencoder(
            start, images, recipe, out, held_out=held_out, save_every=100, **how
        )

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    end = trained(whole).fingerprint
    assert trained(parts, stop=StopAt(5)).fingerprint != end
    assert (parts / "scores.csv").read_text().splitlines()[-1].startswith("5,")
    assert trained(parts, resume=True).fingerprint == end
    scores = [(run / "scores.csv").read_text().splitlines() for run in (whole, parts)]
    assert scores[0][-1] == scores[1][-1]
    assert len(scores[1]) == 3
    with pytest.raises(InputError, match=r"was started with lr 0\.001, now it is 0\.1"):
        trained(parts, recipe=replace(recipe, lr=0.1), resume=True)
    other = AutoencoderConfig(**CONFIG, latent_channels=3)
    with pytest.raises(InputError, match="was started with shape"):
        trained(parts, other, resume=True)
    with pytest.raises(InputError, match=r"was started with images .24, 16"):
        trained(parts, images=pictures(23), resume=True)
    with pytest.raises(InputError, match=r"nowhere holds no training"):
        trained(tmp_path / "nowhere", resume=True)


def test_the_critics_terms_reach_the_decoder_and_not_the_critic():
    torch.manual_seed(0)
    recipe = Recipe(10, batch_size=4, precision="float32", adversarial=0.5, perceptual=0.2)
    stage = StageOne(AutoencoderKL(AutoencoderConfig(**CONFIG)), pictures(), recipe)
    x = stage.batch()
    y = stage.model(x)
    loss, losses = stage.criticism(x, y, (y - x).abs().mean())
    loss.backward()
    assert set(losses) == {"perceptual", "adversarial"}
    assert stage.model.decoder.conv_in.weight.grad.abs().max() > 0
    before = [p.clone() for p in stage.critic.parameters()]
    losses = stage.advance()
    assert {"L1", "MSE", "KL", "perceptual", "adversarial", "critic"} == set(losses)
    pairs = zip(before, stage.critic.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path):
    """What was saved before stays as it is."""
    recipe = Recipe(9, batch_size=4, precision="float32")

    def trained(**how):
        config, held_out = AutoencoderConfig(**CONFIG), {"held": pictures(3)}
        out = tmp_path / "own"
        return train_autoencoder(
            config, pictures(), recipe, out, held_out=held_out, save_every=2, **how
        )

    saved = trained(stop=StopAt(2)).fingerprint
    state = load((tmp_path / "own/training.safetensors").read_bytes())
    state["model.decoder.conv_in.weight"] *= 1e30
    save_file(state, tmp_path / "own/training.safetensors")
    with pytest.raises(InputError, match="step 3: the gradient is not finite"):
        trained(resume=True)
    assert AutoencoderKL.load(tmp_path / "own").fingerprint == saved


def test_broken_images_may_be_left_out(data, capsys):
    (data / "p_3_0.png").write_bytes(b"no")
    assert train("--data", data, "--out", "own", "--steps", 1) == 2
    assert "p_3_0.png: not an image" in capsys.readouterr().err
    assert train("--data", data, "--out", "own", "--steps", 1, "--skip-bad") == 0
    assert "left out: 1 images, first " in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_told_before_the_training(data, capsys, monkeypatch):
    monkeypatch.setattr(StageOne, "advance", lambda stage: pytest.fail("it trained"))
    assert train("--data", data, "--out", data / "p_0_0.png" / "own") == 2
    assert "Not a directory" in capsys.readouterr().err
    with owned(data.parent / "own", AUTOENCODER):
        assert train("--data", data, "--out", "own") == 2
    assert "own: another process is training there" in capsys.readouterr().err


def train(*arguments) -> int:
    return dispatch(
        COMMANDS, ["vae", "train", "--size", "16", "--batch-size", "4", *map(str, arguments)]
    )


def test_what_it_leaves_is_what_vae_loads(data, capsys):
    assert (
        train(
            "--data", data, "--out", "own", "--widths", 8, 16, "--latent-channels", 3, "--steps", 30
        )
        == 0
    )
    assert "on 3 images held out" in capsys.readouterr().out
    vae = AutoencoderKL.load("own")
    assert (vae.factor, vae.latent_channels) == (2, 3)
    held = to_batch(pictures()[sorted(range(24), key=lambda k: f"p_{k}_0.png")[::10]])
    scale = json.loads((data.parent / "own/config.json").read_text())["scaling_factor"]
    with torch.no_grad():
        z = vae.encode(held).sample(torch.Generator().manual_seed(0))
    assert z.std().item() * scale == pytest.approx(1, abs=0.02)
    with Image.open("own/reconstructions.png") as image:
        assert image.size == (3 * 16, 2 * 16)
    assert (
        train(
            "--data",
            data,
            "--out",
            "finer",
            "--start",
            "own",
            "--steps",
            1,
            "--lr",
            1e-9,
            "--ema",
            0,
        )
        == 0
    )
    tables = [
        (data.parent / run / "scores.csv").read_text().splitlines() for run in ("own", "finer")
    ]
    ends = [float([*csv.DictReader(rows)][-1]["held_out_mean"]) for rows in tables]
    assert abs(ends[0] - ends[1]) < 0.1  # it began where the other ended


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", 0], "--steps 0"),
        (["--ema", 1], "--ema 1"),
        (["--kl", -1], "--kl -1"),
        (["--flip", 2], "--flip 2"),
        (["--critic-from", 5], "--critic-from 5: belongs to"),
        (["--start", "tiny", "--widths", 8], "tiny: has a shape"),
        (["--resume", "--overwrite"], "expected one of them"),
        (["--size", 18], "--size 18x18: expected sides"),
        (["--resume"], "holds no training"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "empty"], "--data empty: no images"),
        (["--out", "photos"], "--out photos: not empty"),
        (["--start", "nowhere"], "autoencoder nowhere"),
        (["--lr", "nan"], "--lr nan"),
        (["--kl", "inf"], "--kl inf"),
        (["--seed", 2**64], "--seed 18446744073709551616"),
        (["--seed", -1], "--seed -1"),
        (["--widths", 0, 8], "--widths 0: expected"),
        (["--critic-from", 9, "--perceptual", 1, "--steps", 9], "--critic-from 9: belongs to"),
    ],
)
def test_bad_input_is_one_line_and_status_2(data, capsys, arguments, told):
    (data.parent / "empty").mkdir()
    given = [] if "--data" in arguments else ["--data", data]
    given += [] if "--out" in arguments else ["--out", "new"]
    assert train(*given, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error
    assert not (data.parent / "new" / "config.json").exists()


def test_a_full_disk_loses_nothing_that_was_there(data, capsys, monkeypatch):
    """The disk is full when the last file of a save is written; the first are not kept either."""
    shape = ("--widths", 8, 16, "--latent-channels", 3)
    assert train("--data", data, "--out", "own", *shape, "--steps", 2) == 0
    before = {file.name: file.read_bytes() for file in (data.parent / "own").iterdir()}

    def full(stage, out):
        raise OSError(28, "No space left on device", str(out / "training.safetensors"))

    monkeypatch.setattr(StageOne, "save", full)
    capsys.readouterr()
    assert train("--data", data, "--out", "own", "--steps", 1, "--overwrite") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: own")
    assert error.endswith(": No space left on device")
    assert before == {file.name: file.read_bytes() for file in (data.parent / "own").iterdir()}
    assert train("--data", data, "--out", "new", "--steps", 1) == 2
    assert not (data.parent / "new").exists()


def test_overwrite_leaves_the_model_of_somebody_else(data, capsys):
    (data.parent / "clip").mkdir()
    (data.parent / "clip/config.json").write_text('{"model_type": "clip"}')
    assert train("--data", data, "--out", "clip", "--steps", 1, "--overwrite") == 2
    assert "config.json there was not written by this command" in capsys.readouterr().err
    assert (data.parent / "clip/config.json").read_text() == '{"model_type": "clip"}'
    (data.parent / "notes").mkdir()
    (data.parent / "notes/mine.txt").write_text("mine")
    assert train("--data", data, "--out", "notes", "--steps", 1, "--overwrite") == 0
    assert (data.parent / "notes/mine.txt").read_text() == "mine"


def test_a_folder_with_files_of_those_names_is_no_autoencoder_of_ours(tmp_path):
    for name, text in (("config.json", "{}"), ("recipe.json", "{}"), ("scores.csv", "name,mark")):
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="was not written by this command"):
        check_free(tmp_path, AUTOENCODER, overwrite=True)
    out = tmp_path / "own"
    train_autoencoder(
        AutoencoderConfig(**CONFIG),
        pictures(),
        Recipe(2, batch_size=4, precision="float32"),
        out,
        held_out={"held": pictures(3)},
    )
    assert not (out / ".tinyldm.json").exists()  # the command writes it, of late
    check_free(out, AUTOENCODER, overwrite=True)
