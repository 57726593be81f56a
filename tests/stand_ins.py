"""What tests of the scripts share: stand-ins for the frozen models, settings of a tiny run."""

import json
from types import SimpleNamespace

import torch

from tinyldm.condition import Condition
from tinyldm.nn.unet import UNetConfig
from tinyldm.tasks.base import Encoder
from tinyldm.training import frozen_models
from tinyldm.training.presets import PRESETS

SMALL_RUN = {
    "data": "data",
    "size": (32, 32),
    "batch_size": 4,
    "max_steps": 2,
    "warmup": 1,
    "device": "cpu",
    "precision": "float32",
}

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=6
)


def without_seal(file):
    """What a sealed file of JSON says, to be changed and written back as an unsealed one."""
    content = json.loads(file.read_text())
    del content["checksum"]
    return content


def scrambled(network):
    """The network with all weights random, so that no branch is silent."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            scale = 0.3 if p.ndim == 1 else p[0].numel() ** -0.5
            p.copy_(torch.randn(p.shape, generator=g) * scale)
    return network


class AveragingVae:
    """Averages 4x4 pixels, and repeats the averages; counts how often it encodes."""

    factor, fingerprint = 4, "vae"

    def __init__(self):
        self.calls = 0

    def encode(self, images):
        self.calls += 1
        mean = torch.nn.functional.avg_pool2d(images, self.factor)
        return SimpleNamespace(mean=mean, std=torch.zeros_like(mean))

    def decode(self, latents):
        return latents.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)


class Lengths(Encoder):
    """The same three tokens for any text of one length: the length times `scale` everywhere."""

    width, fingerprint = 6, "text"

    def __init__(self, scale=1.0):
        self.scale = scale

    def stored(self, prompts):
        lengths = torch.tensor([len(text) for text in prompts])
        return Condition(lengths[:, None, None] * torch.full((1, 3, self.width), self.scale))


def work_in(folder, patch, encoder=lambda config: Lengths()):
    """Work in a folder, with a cache of its own and --preset tiny-test; frozen models stand in.

    encoder: makes what encodes the prompts of a run with this config
    """

    def load_frozen(config, device, place=""):
        return frozen_models.FrozenModels(AveragingVae(), encoder(config))

    patch.chdir(folder)
    patch.setenv("TINYLDM_CACHE", str(folder / "cache"))
    patch.setitem(PRESETS, "tiny-test", TINY)
    patch.setattr(frozen_models, "load_frozen", load_frozen)
