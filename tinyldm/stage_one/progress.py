"""What a training of stage one leaves: the autoencoder, its scores, some reconstructions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.data.images import grid
from tinyldm.files import replacing
from tinyldm.scores.reconstruction import picture_scores, reconstruct, to_batch

SCORES, SHEET = "scores.csv", "reconstructions.png"

Pictures = Mapping[str, np.ndarray | Tensor]  # sets of uint8 pictures (n, h, w, 3) by name


def publish(vae: AutoencoderKL, out: Path, step: int, held_out: Pictures) -> None:
    """Write the autoencoder, a row of scores.csv and reconstructions.png to the folder out.

    The scaling_factor in config.json, by which other programs multiply latents, is 1 / deviation().
    """
    out.mkdir(parents=True, exist_ok=True)
    row: dict[str, str] = {"step": str(step)}
    for name, pictures in held_out.items():
        score = picture_scores(vae, pictures)
        row[f"{name}_mean"] = f"{score.mean:.2f}"
        row[f"{name}_pooled"] = f"{score.pooled:.2f}"
        row[f"{name}_ssim"] = f"{score.ssim:.4f}"
    vae.set_deviation(deviation(vae, held_out))
    vae.save_pretrained(out)
    add_row(out / SCORES, row)
    reconstructions(vae, held_out).save(out / SHEET)


@torch.no_grad()
def deviation(vae: AutoencoderKL, held_out: Pictures) -> float:
    """The standard deviation of latents, drawn for at most 64 pictures of each set."""
    latents = []
    for pictures in held_out.values():
        posterior = vae.encode(to_batch(pictures[:64]).to(vae.device))
        latents.append(posterior.sample(torch.Generator().manual_seed(0)))
    return torch.cat(latents).std().item()


def add_row(file: Path, row: dict[str, str]) -> None:
    """Add a row to a table of scores; rows of this step and of later ones are dropped."""
    rows = []
    if file.is_file():
        with open(file, newline="", encoding="utf-8") as stream:
            rows = [r for r in csv.reader(stream) if r and r[0].isdigit()]
    earlier = [r for r in rows if int(r[0]) < int(row["step"])]
    with replacing(file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([list(row), *earlier, list(row.values())])


def reconstructions(vae: AutoencoderKL, held_out: Pictures) -> Image.Image:
    """For each set a row of at most 16 pictures, and below it a row of their reconstructions."""
    columns = min(16, min(len(pictures) for pictures in held_out.values()))
    images = []
    for pictures in held_out.values():
        shown = torch.as_tensor(pictures[:columns])
        for picture in [*shown, *reconstruct(vae, shown)]:
            images.append(Image.fromarray(picture.numpy()))
    return grid(images, columns, gap=0)
