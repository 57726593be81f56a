"""The core loops of public scripts, written anew from what they do: once with diffusers, and once
with nothing but their import lines changed. Losses, learning rates, images are the same.
"""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from test_script import AUTOENCODER, CONDITIONAL, PIXELS

from tinyldm import compat
from tinyldm.errors import InputError

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__", "ignore:.*getdata.*", "ignore:.*deprecated"
)

SCRIPTS = Path(__file__).parent / "scripts"
IMPORT = re.compile(r"^from diffusers\b|^import diffusers$", re.MULTILINE)


def start(network):
    """Give a network the weights that belong to its names and shapes."""
    with torch.no_grad():
        for name, p in sorted(network.named_parameters()):
            g = torch.Generator().manual_seed(sum(name.encode()) % 1000)
            size = 1 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.2
            p.copy_(torch.randn(p.shape, generator=g) * size + (p.ndim == 1 and "norm" in name))


def known_at(scheduler, latents, noise, timesteps):
    """The known part of an image at a timestep of the run.

    diffusers' add_noise goes by its place in the run, which has moved on by one step.
    """
    return scheduler.add_noise(latents, noise, timesteps.repeat(len(latents)))


def ran(script, folder, made=(), **given):
    """What a script leaves behind, with diffusers and with compat."""
    found = []
    text = (SCRIPTS / f"{script}.py").read_text()
    for library in ("diffusers", "tinyldm.compat"):
        root = folder / library
        root.mkdir()
        for name, part in dict(made).items():
            part.save_pretrained(root / name)
        path = root / "script.py"
        words = {"from diffusers": f"from {library}"}
        words["import diffusers"] = f"import {library} as diffusers"
        path.write_text(IMPORT.sub(lambda found, words=words: words[found[0]], text))
        found.append(
            runpy.run_path(
                str(path), {"root": str(root), "start": start, "known_at": known_at, **given}
            )
        )
    return found


def libraries(namespace):
    """The packages of what a script imported, torch and the standard library aside."""
    homes = {str(getattr(value, "__module__", "")).split(".")[0] for value in namespace.values()}
    return homes & {"diffusers", "tinyldm"}


def assert_same(theirs, ours, worst=1e-3):
    assert libraries(theirs) == {"diffusers"}
    assert libraries(ours) == {"tinyldm"}
    torch.testing.assert_close(
        torch.tensor(ours["losses"]), torch.tensor(theirs["losses"]), rtol=1e-4, atol=1e-5
    )
    assert len(theirs["results"]) > 0
    for k, (a, b) in enumerate(zip(ours["results"], theirs["results"], strict=True)):
        assert b.std() > 0.01, k
        torch.testing.assert_close(
            a,
            b,
            rtol=0,
            atol=worst * b.abs().max().clamp(min=1).item(),
            msg=lambda m, k=k: f"{k}: {m}",
        )


@pytest.fixture(scope="module")
def latent():
    """Networks on latents, and the scheduler of Stable Diffusion, which is PNDM."""
    made = {
        "unet": diffusers.UNet2DConditionModel(**CONDITIONAL),
        "vae": diffusers.AutoencoderKL(**AUTOENCODER),
        "scheduler": diffusers.PNDMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            skip_prk_steps=True,
            steps_offset=1,
            set_alpha_to_one=False,
        ),
    }
    for name in ("unet", "vae"):
        start(made[name])
    return made


@pytest.fixture(scope="module")
def pixels():
    """Networks on pixels, with and without labels."""
    made = {
        "pixels": diffusers.UNet2DModel(**PIXELS),
        "plain": diffusers.UNet2DModel(**PIXELS | {"num_class_embeds": None}),
    }
    for network in made.values():
        start(network)
    return made


NAMES = (
    "PNDMScheduler",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "HeunDiscreteScheduler",
)


def tensor(images, lib):
    """Pictures as a tensor (b, c, h, w); for "pt", diffusers 0.36 gives an array."""
    if lib is diffusers and isinstance(images, np.ndarray):
        return torch.from_numpy(images).permute(0, 3, 1, 2)
    return images


def test_unconditional(tmp_path):
    assert_same(*ran("unconditional", tmp_path))
    for kind in ("DDPMPipeline", "DiffusionPipeline"):
        images = []
        for lib in (compat, diffusers):
            for root in ("diffusers", "tinyldm.compat"):
                pipeline = getattr(lib, kind).from_pretrained(tmp_path / root / "sample")
                pipeline.set_progress_bar_config(disable=True)
                assert type(pipeline).__name__ == "DDPMPipeline"
                made = pipeline(1, torch.manual_seed(0), num_inference_steps=3, output_type="pt")
                images.append(tensor(made.images, lib))
        for image in images[1:]:
            torch.testing.assert_close(image, images[0], rtol=0, atol=1e-4)


def test_course_loops(tmp_path):
    assert_same(*ran("course_loops", tmp_path))


def test_iclevr(tmp_path):
    assert_same(*ran("iclevr", tmp_path))


def test_text_to_image(tmp_path, latent):
    theirs, ours = ran("text_to_image", tmp_path, latent)
    assert_same(theirs, ours)
    for part in ("trained", "wider", "unet_ema"):  # each library reads what the other one wrote
        back = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "tinyldm.compat" / part)
        forth = type(ours["unet"]).from_pretrained(tmp_path / "diffusers" / part)
        for name, weight in back.state_dict().items():
            torch.testing.assert_close(weight, forth.state_dict()[name], rtol=0, atol=1e-4)


def test_stable_diffusion_loop(tmp_path, latent):
    assert_same(*ran("stable_diffusion_loop", tmp_path, latent, names=NAMES))


def test_editing(tmp_path, latent):
    names = [
        name for name in NAMES if name not in ("PNDMScheduler", "EulerAncestralDiscreteScheduler")
    ]
    assert_same(*ran("editing", tmp_path, latent, names=names))


def test_inversion(tmp_path, pixels):
    assert_same(*ran("inversion", tmp_path, pixels))


def test_own_pipeline(tmp_path, pixels):
    assert_same(*ran("own_pipeline", tmp_path, pixels), worst=1 / 255 + 1e-4)
    for root in ("diffusers", "tinyldm.compat"):  # a folder of a class that nobody else has
        with pytest.raises(InputError, match="LabelPipeline"):
            compat.DiffusionPipeline.from_pretrained(tmp_path / root / "own")
