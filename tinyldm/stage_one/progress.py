"""What a training of stage one leaves: the autoencoder, its scores, some reconstructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.data.images import grid
from tinyldm.errors import InputError
from tinyldm.files import read_text
from tinyldm.folders import Kind
from tinyldm.scores.reconstruction import picture_scores, reconstruct, to_batch
from tinyldm.training.log import write_rows
from tinyldm.typed import read_json

SCORES, SHEET = "scores.csv", "reconstructions.png"

Pictures = Mapping[str, np.ndarray | Tensor]  # sets of uint8 pictures (n, h, w, 3) by name


def has_autoencoder(folder: Path) -> bool:
    """Whether a folder holds an autoencoder of stage one, of a version that left no marker."""
    try:
        AutoencoderConfig.from_dict(read_json(folder / "config.json", dict[str, Any]))
        recipe = read_json(folder / "recipe.json", dict[str, Any])
        table = read_text(folder / SCORES)
    except InputError:
        return False
    return "steps" in recipe and table.startswith("step,")


AUTOENCODER = Kind(
    "autoencoder",
    r"config\.json|(model|training)\.safetensors|recipe\.json|scores\.csv|reconstructions\.png",
    known=has_autoencoder,
)


def publish(
    vae: AutoencoderKL, out: Path, step: int, held_out: Pictures, scores: Path | None = None
) -> None:
    """Write the autoencoder, a row of scores.csv and reconstructions.png to the folder out.

    scores: the scores.csv of earlier steps, which the row is added to
    The scaling_factor in config.json, by which other programs multiply latents, is 1 / deviation().
    """
    row: dict[str, str] = {"step": str(step)}
    for name, pictures in held_out.items():
        score = picture_scores(vae, pictures)
        row[f"{name}_mean"] = f"{score.mean:.2f}"
        row[f"{name}_pooled"] = f"{score.pooled:.2f}"
        row[f"{name}_ssim"] = f"{score.ssim:.4f}"
    vae.set_deviation(deviation(vae, held_out))
    vae.save_pretrained(out)
    write_rows(out / SCORES, [list(row), *earlier_rows(scores, step), list(row.values())])
    reconstructions(vae, held_out).save(out / SHEET)


@torch.no_grad()
def deviation(vae: AutoencoderKL, held_out: Pictures) -> float:
    """The standard deviation of latents, drawn for at most 64 pictures of each set."""
    latents = []
    for pictures in held_out.values():
        posterior = vae.encode(to_batch(pictures[:64]).to(vae.device))
        latents.append(posterior.sample(torch.Generator().manual_seed(0)))
    return torch.cat(latents).std().item()


def earlier_rows(file: Path | None, step: int) -> list[list[str]]:
    """The rows of a table of scores that are of steps before this one; none if there is no file."""
    if file is None or not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split(",") for line in lines]
    return [row for row in rows if re.fullmatch("[0-9]{1,18}", row[0]) and int(row[0]) < step]


def reconstructions(vae: AutoencoderKL, held_out: Pictures) -> Image.Image:
    """For each set a row of at most 16 pictures, and below it a row of their reconstructions."""
    columns = min(16, min(len(pictures) for pictures in held_out.values()))
    images = []
    for pictures in held_out.values():
        shown = torch.as_tensor(pictures[:columns])
        for picture in [*shown, *reconstruct(vae, shown)]:
            images.append(Image.fromarray(picture.numpy()))
    return grid(images, columns, gap=0)
