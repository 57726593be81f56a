"""Stage one: training an autoencoder on pictures."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from random import Random

import numpy as np
import torch
import transformers.utils.logging
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from tinyldm.frozen.vae import AutoencoderConfig, AutoencoderKL
from tinyldm.jobs.ema import EMA
from tinyldm.scores.reconstruction import picture_scores, reconstruct, to_batch
from tinyldm.toy import pictures as procedural
from tinyldm.toy.monsters import ACTIONS, draw, monsters

# the shape of the autoencoder that ships: a quarter of the image's sides, little work at full resolution
TINY = {"block_out_channels": (16, 32, 96), "layers_per_block": 1, "norm_num_groups": 1,
        "mid_block_add_attention": False, "latent_channels": 12}  # fmt: skip
MONSTERS = 0.5  # their share of the pictures that it learns from


def augmented(batch: Tensor, generator: torch.Generator) -> Tensor:
    """A batch (b, 3, h, w) mirrored and turned together; half of it with colours permuted, half dimmed and lit anew."""
    b, draws = len(batch), torch.rand(2, generator=generator)
    if draws[0] < 0.5:
        batch = batch.flip(3)
    if batch.shape[2] == batch.shape[3]:
        batch = batch.rot90(int(draws[1] * 4), (2, 3))
    order, kept = torch.rand(b, 3, generator=generator).argsort(1), torch.arange(3).expand(b, 3)
    order = torch.where(torch.rand(b, 1, generator=generator) < 0.5, order, kept)
    batch = batch.gather(1, order[:, :, None, None].expand_as(batch))
    contrast, light, chance = torch.rand(3, b, 1, 1, 1, generator=generator)
    return torch.where(chance < 0.5, batch * (0.7 + 0.4 * contrast) + 0.5 * (light - 0.5), batch).clamp(-1, 1)


def train_autoencoder(
    config: AutoencoderConfig,
    images: np.ndarray | Tensor,
    steps: int,
    out: str | Path,
    held_out: dict[str, np.ndarray],
    *,
    batch_size: int = 32,
    lr: float = 1e-3,
    warmup: int = 100,
    kl: float = 1e-4,
    ema: float = 0.998,
    squared: float = 3.0,
    augment: float = 0.5,
    precision: str = "bf16",
    device: str = "cpu",
    save_every: int = 200,
    seed: int = 0,
) -> AutoencoderKL:
    """Train an autoencoder on uint8 images (n, h, w, 3): L1 + squared x MSE + kl x KL (LDM 2112.10752, without a critic).

    augment: the share of batches that are turned, recoloured and relit; ema: the decay of the averaged weights.
    Every save_every steps and at the end the averaged weights are measured on each set of held_out (name -> pictures)
    and saved to out with scores.csv and reconstructions.png. Returns the averaged model.
    """
    torch.manual_seed(seed)
    generator, images, out = torch.Generator().manual_seed(seed), torch.as_tensor(images), Path(out)
    model = AutoencoderKL(config).to(device).train()
    _prepare(model)
    average = EMA(model, ema)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    bar, order = tqdm(range(1, steps + 1), desc="autoencoder", unit="step"), torch.empty(0, dtype=torch.long)
    for step in bar:
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        batch, order = images[order[:batch_size]], order[batch_size:]
        x = to_batch(batch)
        x = (augmented(x, generator) if torch.rand((), generator=generator) < augment else x).to(device)
        for group in optimiser.param_groups:
            group["lr"] = lr * min(step / warmup, 1) * 0.5 * (1 + math.cos(math.pi * step / (steps + 1)))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            posterior = model.posterior(x)
            y = model.decode(posterior.sample(generator))
        absolute, square, divergence = (y - x).abs().mean(), (y - x).square().mean(), posterior.kl().mean()
        (absolute + squared * square + kl * divergence).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update(model)
        if step % 10 == 0:
            bar.set_postfix(L1=f"{absolute.item():.4f}", KL=f"{divergence.item():.2f}")
        if step % save_every == 0 or step == steps:
            save(average.network, out, step, held_out)
    return average.network


@torch.no_grad()
def _prepare(model: AutoencoderKL):
    """Start where learning is quick: docs/vae.md compares.

    ResNet blocks pass their input on, all other convolutions keep its size, and posteriors have a std of 0.05.
    """
    for name, layer in model.named_modules():
        if name.endswith("conv2"):
            layer.weight.zero_()
        elif isinstance(layer, nn.Conv2d) and not name.endswith("conv1"):
            layer.weight.normal_(std=layer.weight[0].numel() ** -0.5)
            layer.bias.zero_()
    last = model.quant_conv if model.config.use_quant_conv else model.encoder.conv_out
    last.weight[model.latent_channels :] *= 0.1
    last.bias[model.latent_channels :] = -6.0


def monster_pictures(count: int, seed: str, known: bool = True) -> np.ndarray:
    """Toy monsters in random actions, uint8 (count, 64, 64, 3); known: those of the training captions, else others."""
    kinds, randoms = monsters()[0 if known else 1], [Random(f"{seed}-{k}") for k in range(count)]
    return np.stack([np.asarray(draw(r.choice(kinds), r.choice(list(ACTIONS)), r)) for r in randoms])


def train_tiny(out: str | Path, steps: int = 5000, seed: int = 0, count: int = 24_000) -> AutoencoderKL:
    """Train the autoencoder that ships: on count pictures, monsters and procedural ones; see docs/vae.md."""
    few = round(MONSTERS * count)
    many = procedural.pictures(count - few, seed=seed, progress=True)
    images = np.concatenate([many, monster_pictures(few, f"vae {seed}")])
    held_out = {"monsters": monster_pictures(192, "held out", known=False),
                "pictures": procedural.pictures(192, seed=seed + 10**6)}  # fmt: skip
    config = AutoencoderConfig(**TINY)
    vae = train_autoencoder(config, images, steps, out, held_out, batch_size=16, lr=1.5e-3, kl=1e-5, seed=seed)
    vae.half().save_pretrained(out)  # half the size to ship; load gives float32
    return AutoencoderKL.load(out)


def save(vae: AutoencoderKL, out: Path, step: int, held_out: dict[str, np.ndarray]):
    """Write vae, a line of scores.csv and reconstructions.png to the folder out."""
    out.mkdir(parents=True, exist_ok=True)
    scores = {name: picture_scores(vae, pictures) for name, pictures in held_out.items()}
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # it would tear the bar of the training
    vae.save_pretrained(out)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    with open(out / "scores.csv", "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(["step"] + [f"{name}_{kind}" for name in scores for kind in ("mean", "pooled")])
        writer.writerow([step] + [f"{value:.2f}" for s in scores.values() for value in (s.mean, s.pooled)])
    rows = []
    for pictures in held_out.values():
        some = torch.as_tensor(pictures[:16])
        rows += [some, reconstruct(vae, some)]
    grid = rearrange(torch.stack(rows), "r n h w c -> (r h) (n w) c").numpy()
    Image.fromarray(grid).save(out / "reconstructions.png")
