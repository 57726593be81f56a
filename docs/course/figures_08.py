"""The figures of chapter 8: what an autoencoder loses, and why latents need unit size.

    python docs/course/figures_08.py

It prints the table of the chapter, too: products by torch's counter.
"""

from pathlib import Path

import torch
from style import options, save, strip
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tinyldm import AutoencoderKL, Condition, NoiseSchedule
from tinyldm.data.images import from_bytes
from tinyldm.scores.attributes import drawings
from tinyldm.training.network import DataShape, build_network, network_recipe
from tinyldm.training.settings import TrainSettings

SHOWN = 6
TIMES = (0, 250, 500, 750, 999)
SIZES = (0.2, 1.0, 5.0)
TOKENS = 20  # of a caption, as in docs/few_steps.py
NETWORKS = {
    "toy, pixels": ("toy", 3, 64, 128),
    "toy, latents": ("toy", 12, 16, 128),
    "base, pixels": ("base", 3, 256, 512),
    "base, latents": ("base", 4, 32, 512),
}


@torch.no_grad()
def reconstruction(vae: AutoencoderKL, x: Tensor, out: Path) -> None:
    """Drawings, their reconstructions, and four times the difference."""
    again = vae(x)
    rows = [x, again, 4 * (again - x).abs() - 1]
    save(strip(rows, names=["drawn", "rebuilt", "difference"], size=1.5), out, "08_reconstruction")


@torch.no_grad()
def channels(latents: Tensor, out: Path) -> None:
    """The channels (c, h, w) of one latent, each as a picture."""
    shown = latents.div(2.5).clamp(-1, 1)[:, None]
    half = len(shown) // 2
    save(strip([shown[:half], shown[half:]], size=1.2), out, "08_channels")


@torch.no_grad()
def scale(vae: AutoencoderKL, latents: Tensor, mean: Tensor, std: Tensor, out: Path) -> None:
    """One latent at several timesteps, had it another size; each x_t is decoded at unit size."""
    schedule = NoiseSchedule("scaled_linear")
    eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for k in SIZES:
        row = []
        for t in TIMES:
            level = schedule.level(t)
            x_t = level.alpha * k * latents + level.sigma * eps
            unit = x_t / (level.alpha**2 * k**2 + level.sigma**2) ** 0.5
            row.append(vae.decode((unit * std + mean)[None])[0])
        rows.append(row)
    labels, names = [f"t = {t}" for t in TIMES], [f"size {k:g}" for k in SIZES]
    save(strip(rows, labels, names, size=1.5), out, "08_scale")


def flops(network, *inputs) -> int:
    """The products of a call, those inside of attention included."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(*inputs)
    return counter.get_total_flops()


def count() -> None:
    """Print the GFLOP of one call of each network, and of the tiny decoder, for one picture."""
    for name, (preset, c, side, width) in NETWORKS.items():
        shape = DataShape(c, (side, side), token_dim=width)
        with torch.device("meta"):
            network = build_network(network_recipe(TrainSettings(preset=preset), shape))
            condition = Condition(tokens=torch.empty(1, TOKENS, width))
            x, t = torch.empty(1, c, side, side), torch.empty(1)
        print(f"{name:15} {flops(network, x, t, condition) / 1e9:10.2f} GFLOP")
    vae = AutoencoderKL.load("tiny").to("meta")
    z = torch.empty(1, 12, 16, 16, device="meta")
    print(f"{'tiny decoder':15} {flops(vae.decode, z) / 1e9:10.2f} GFLOP")


def draw(out: Path) -> None:
    """Write the three pictures."""
    vae = AutoencoderKL.load("tiny")
    x = from_bytes(drawings(256, seed=3)[0])
    with torch.no_grad():
        z = torch.cat([vae.encode(part).mean for part in x.split(32)])
    mean, std = z.mean((0, 2, 3))[:, None, None], z.std((0, 2, 3))[:, None, None]
    latents = (z - mean) / std
    reconstruction(vae, x[:SHOWN], out)
    channels(latents[0], out)
    scale(vae, latents[0], mean, std, out=out)


if __name__ == "__main__":
    draw(options(__doc__).out)
    count()
