"""What tests of the scripts share: stand-ins for the frozen models, settings of a tiny run."""

import json
from types import SimpleNamespace

import torch

from tinyldm.condition import Condition
from tinyldm.tasks.base import Encoder

SMALL_RUN = {
    "data": "data",
    "size": (32, 32),
    "batch_size": 4,
    "max_steps": 2,
    "warmup": 1,
    "device": "cpu",
    "precision": "float32",
}


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
