"""Runs become folders of diffusers and come back; networks trained with diffusers become runs."""

import argparse
import shutil
from dataclasses import asdict

import pytest
import torch

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.commands import convert
from tinyldm.condition import Condition
from tinyldm.data.examples import Request
from tinyldm.data.images import load_image
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.frozen.text import TextEncoder
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, save_checkpoint
from tinyldm.training.run import RUN

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__")


def scrambled(network):
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(
                torch.randn(p.shape, generator=g) * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
            )
    return network.eval()


def converted(source, out, *more):
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    convert.run(parser.parse_args([str(source), "--out", str(out), *more]))


ZERO_SNR = NoiseSchedule(zero_snr=True)


def make_run(folder, config, schedule=ZERO_SNR, **facts):
    network = scrambled(UNet(config))
    latents = {
        "mean": torch.rand(4, 1, 1),
        "std": torch.rand(4, 1, 1),
        "null.tokens": torch.randn(1, 3, 12),
    }
    config = {
        "step": 70,
        "network": asdict(config),
        "schedule": asdict(schedule),
        "prediction": "v",
        "latent_shape": [4, 8, 8],
        "vae": "tiny",
        **facts,
    }
    weights = {"model": network.state_dict(), "latents": latents}
    save_checkpoint(folder / "checkpoints" / "step-0000070", config, weights)
    return network, latents


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [(NoiseSchedule("flow"), "v"), (NoiseSchedule("flow", shift=0.5), "flow"), (ZERO_SNR, "flow")],
)
def test_a_run_that_no_scheduler_fits_is_refused(tmp_path, schedule, prediction):
    shape = UNetConfig(channels=(8,), attention="cross", token_dim=12, groups=8, middle="none")
    make_run(tmp_path / "run", shape, schedule, prediction=prediction)
    with pytest.raises(InputError, match="which no scheduler written here knows"):
        converted(tmp_path / "run", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseSchedule(zero_snr=True),
        NoiseSchedule("linear", 500, beta_end=0.04),
        NoiseSchedule("linear", zero_snr=True),
        NoiseSchedule(shift=0.5),
        NoiseSchedule(zero_snr=True, shift=0.5),
    ],
)
def test_a_run_and_back(tmp_path, capsys, schedule):
    shape = dict(
        channels=(16, 32), attention=("none", "cross"), blocks=1, heads=4, token_dim=12, groups=8
    )
    network, latents = make_run(tmp_path / "run", UNetConfig(**shape), schedule)
    converted(tmp_path / "run", tmp_path / "folder")
    assert "folder" in capsys.readouterr().out
    theirs = diffusers.UNet2DConditionModel.from_pretrained(
        tmp_path / "folder", subfolder="unet"
    ).eval()
    x, tokens, t = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 12), torch.tensor([5, 700])
    with torch.no_grad():
        expected = network(x, t, Condition(tokens))
        torch.testing.assert_close(theirs(x, t, tokens).sample, expected, rtol=1e-4, atol=1e-4)
    scheduler = diffusers.DPMSolverMultistepScheduler.from_pretrained(
        tmp_path / "folder", subfolder="scheduler"
    )
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [level.t for level in schedule.grid(10)][:-1]
    torch.testing.assert_close(
        scheduler.alphas_cumprod[:-1].double(), schedule.alpha_bar[:-1], rtol=1e-3, atol=1e-6
    )
    assert scheduler.config.prediction_type == "v_prediction"
    assert theirs.config.sample_size == 8

    converted(tmp_path / "folder", tmp_path / "back")
    before, after = load_checkpoint(tmp_path / "run"), load_checkpoint(tmp_path / "back")
    assert before.config == after.config
    assert before.schedule == after.schedule
    assert before.path.name == after.path.name
    assert torch.equal(after.mean, latents["mean"])
    assert torch.equal(after.std, latents["std"])
    assert torch.equal(after.null.tokens, latents["null.tokens"])
    assert all(
        torch.equal(w, after.network.state_dict()[name])
        for name, w in before.network.state_dict().items()
    )


@pytest.mark.parametrize("timesteps", [1000, 500])
def test_a_run_that_diffusers_went_on_with(tmp_path, timesteps):
    """What came of it in between counts.

    Weights, noise schedule and kind of prediction are those of the folder.
    """
    shape = dict(channels=(16,), attention="cross", heads=2, groups=8, token_dim=12)
    make_run(tmp_path / "run", UNetConfig(**shape))
    converted(tmp_path / "run", tmp_path / "folder")
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "folder" / "unet")
    with torch.no_grad():
        unet.conv_out.bias += 1
    unet.save_pretrained(tmp_path / "folder" / "unet")
    scheduler = diffusers.DDPMScheduler(timesteps, beta_end=0.03)
    scheduler.save_pretrained(tmp_path / "folder" / "scheduler")
    converted(tmp_path / "folder", tmp_path / "back")
    before, after = load_checkpoint(tmp_path / "run"), load_checkpoint(tmp_path / "back")
    assert after.schedule == NoiseSchedule("linear", timesteps, beta_end=0.03)
    assert after.prediction == "eps"
    assert torch.equal(after.network.conv_out.bias, before.network.conv_out.bias + 1)


def test_a_network_trained_with_diffusers(tmp_path):
    vae, text = AutoencoderKL.load("tiny"), TextEncoder.load("tiny")
    c = vae.latent_channels
    unet = scrambled(
        diffusers.UNet2DConditionModel(
            in_channels=c,
            out_channels=c,
            block_out_channels=(16, 32),
            norm_num_groups=8,
            layers_per_block=1,
            cross_attention_dim=text.width,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
    )
    unet.save_pretrained(tmp_path / "theirs" / "unet")
    diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    ).save_pretrained(tmp_path / "theirs" / "scheduler")
    frozen = ["--vae", "tiny", "--text-encoder", "tiny"]
    converted_from_a_flat_folder(tmp_path, [*frozen, "--size", "48x32"])
    with pytest.raises(InputError, match="--size"):
        converted(tmp_path / "theirs", tmp_path / "run", *frozen)
    converted(tmp_path / "theirs", tmp_path / "run", *frozen, "--size", "48x32")
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.prediction == "eps"
    assert checkpoint.schedule == NoiseSchedule("scaled_linear")
    assert checkpoint.config["latent_shape"] == [c, 32 // vae.factor, 48 // vae.factor]
    image = (
        torch.rand(1, 3, 32, 48) * 2 - 1
    )  # what it was trained on: the latent times scaling_factor
    latent = vae.encode(image).mean[0]
    torch.testing.assert_close(
        (latent - checkpoint.mean) / checkpoint.std, latent * vae.config.scaling_factor
    )
    assert vae.config.scaling_factor != 1
    empty = text.encode([""])
    assert torch.equal(checkpoint.null.tokens, empty.tokens)
    assert torch.equal(checkpoint.null.mask, empty.mask)
    x, condition = torch.randn(1, c, 8, 8), text.encode(["a red bird"])
    with torch.no_grad():
        expected = unet(x, 500, condition.tokens).sample
        got = checkpoint.network(x, 500, Condition(condition.tokens))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    sample_images(
        tmp_path / "run",
        [Request("a.png", "a red bird")],
        tmp_path / "out",
        device="cpu",
        how=Drawing(steps=2, precision="float32"),
    )
    assert load_image(tmp_path / "out" / "a.png").size == (48, 32)


def converted_from_a_flat_folder(tmp_path, options):
    """unet/ by itself: its schedule is asked for, and found beside the weights or elsewhere."""
    theirs, flat = tmp_path / "theirs", tmp_path / "flat"
    shutil.copytree(theirs / "unet", flat)
    with pytest.raises(InputError, match=r"--scheduler: .*flat holds no scheduler_config\.json"):
        converted(flat, tmp_path / "run-1", *options)
    assert not (tmp_path / "run-1").exists()
    scheduler = theirs / "scheduler"
    for k, place in enumerate((theirs, scheduler)):
        converted(flat, tmp_path / f"run-{k}", *options, "--scheduler", str(place))
    shutil.copy(scheduler / "scheduler_config.json", flat)
    converted(flat, tmp_path / "run-2", *options)
    weights = []
    for k in range(3):
        checkpoint = load_checkpoint(tmp_path / f"run-{k}")
        assert checkpoint.schedule == NoiseSchedule("scaled_linear")
        weights.append(checkpoint.network.state_dict()["conv_in.weight"])
    unet = diffusers.UNet2DConditionModel.from_pretrained(flat)
    assert all(torch.equal(weight, unet.conv_in.weight) for weight in weights)
    with pytest.raises(InputError, match="no unet/ in it; --vae"):
        converted(scheduler, tmp_path / "run-3", *options)


def test_what_can_not_be_converted(tmp_path):
    network = UNetConfig(
        channels=(16,), attention="cross", middle="self", heads=2, groups=8, token_dim=12
    )
    make_run(tmp_path / "run", network)
    with pytest.raises(InputError, match=r"mid_block.attentions.0"):
        converted(tmp_path / "run", tmp_path / "out")
    with pytest.raises(InputError, match="--vae"):
        converted(tmp_path / "run", tmp_path / "out", "--vae", "tiny")
    with pytest.raises(InputError, match="--out"):
        converted(tmp_path / "run", tmp_path)
    with pytest.raises(InputError, match="nothing"):
        converted(tmp_path / "nothing", tmp_path / "out")
    folder = tmp_path / "theirs"
    diffusers.UNet2DModel(
        block_out_channels=(16,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    diffusers.DDPMScheduler(trained_betas=[0.1] * 50).save_pretrained(folder / "scheduler")
    with pytest.raises(InputError, match="trained_betas"):
        converted(folder, tmp_path / "out")
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet1DModel"}')
    with pytest.raises(InputError, match="UNet1DModel"):
        converted(folder, tmp_path / "out")


def test_a_full_disk_leaves_nothing_and_a_link_its_target(tmp_path, monkeypatch):
    shape = dict(
        channels=(16, 32), attention=("none", "cross"), blocks=1, heads=4, token_dim=12, groups=8
    )
    make_run(tmp_path / "run", UNetConfig(**shape))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(convert.shutil, "copyfile", full)  # the last files
        with pytest.raises(OSError, match="No space left on device") as caught:
            converted(tmp_path / "run", tmp_path / "folder")
    assert caught.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    converted(tmp_path / "run", tmp_path / "folder")
    converted(tmp_path / "folder", tmp_path / "back")
    assert RUN.holds(tmp_path / "back")
