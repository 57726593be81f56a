"""Pictures of a run: its previews, its loss, and the training images nearest to its samples."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyldm.data.examples import images_in, images_of
from tinyldm.data.images import grid, load_image, resize, save_animation, save_image
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.files import write_text
from tinyldm.folders import numbered
from tinyldm.pages.curves import Chart, loss_lines, svg
from tinyldm.pages.report import column, first_to_last, read_steps, step_of
from tinyldm.scores.comparison import Comparison

NEIGHBOURS = 4  # training images shown beside each sample
GAP = 6  # pixels between the images of a sheet


def draw_previews(run: Path, out: Path) -> None:
    """Write the previews of a run: all as an animation, or at most ten on one sheet."""
    files = numbered(run / "previews", ".png")
    if not files:
        raise InputError(f"{run}: no previews there; expected {run}/previews/step-*.png")
    if out.suffix == ".gif":
        save_animation([load_image(file) for file in files], out)
        return
    shown = first_to_last(files, 10)
    images = [load_image(file) for file in shown]
    save_image(grid(images, columns=5, gap=GAP, words=[step_of(file) for file in shown]), out)


def draw_curve(run: Path, out: Path) -> None:
    """Write the loss of a run as SVG: smoothed, and as it was, on a logarithmic axis."""
    log = read_steps(run / "log.csv")
    if not log:
        raise InputError(f"{run / 'log.csv'}: no steps there")
    lines = loss_lines(column(log, "loss"))
    write_text(out, svg(Chart("Loss", lines, "step", "loss, smoothed", log=True)))


def nearest(a: Tensor, b: Tensor, count: int, chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """The rows of b (m, d) that have the largest cosines with each row of a (n, d).

    Returns the cosines and the places of those rows in b, both (n, count), the nearest first.
    """
    a = F.normalize(a, dim=1)
    b = F.normalize(b, dim=1)
    cosines, places = [], []
    for part in a.split(chunk):
        found = (part @ b.T).topk(count, dim=1)
        cosines.append(found.values)
        places.append(found.indices)
    return torch.cat(cosines), torch.cat(places)


def memorised(made: Tensor, train: Tensor) -> dict[str, float]:
    """How near features of samples (n, d) lie to training images (m, d), and those to one another.

    "share" is the share of the samples that lie nearer to a training image than 95 % of the
    training images lie to another one; "cosine of ..." are medians.
    """
    every = max(1, len(train) // 2000)
    to_itself_and_next, _ = nearest(train[::every], train, 2)
    among_training = to_itself_and_next[:, 1]
    to_training, _ = nearest(made, train, 1)
    to_training = to_training[:, 0]
    near = to_training > among_training.quantile(0.95)
    return {
        "cosine of samples": to_training.median().item(),
        "cosine of training images": among_training.median().item(),
        "share": near.double().mean().item(),
    }


def draw_neighbours(
    images: Path, train: Path, out: Path, *, clip: str, rows: int, device: str
) -> dict[str, float]:
    """Write a sheet of samples, the most like a training image first; returns memorised().

    Each row is a sample and its nearest training images, with their cosines of CLIP's vectors.
    """
    made = tuple(images_in(images))
    known = tuple(images_of(train))
    if not made or len(known) <= NEIGHBOURS:
        raise InputError(
            f"{images}, {train}: {len(made)} and {len(known)} images, "
            f"expected at least 1 and {NEIGHBOURS + 1}"
        )
    job = Comparison(files=made, references=known, clip=clip, device=pick_device(device))
    features = job.features("clip", made)
    real = job.features("clip", known)
    cosines, places = nearest(features, real, NEIGHBOURS)
    pictures, words = [], []
    for sample in cosines[:, 0].argsort(descending=True)[:rows].tolist():
        drawn = load_image(made[sample])
        pictures.append(drawn)
        words.append(made[sample].stem[:16])
        for place, cosine in zip(places[sample].tolist(), cosines[sample].tolist(), strict=True):
            pictures.append(resize(load_image(known[place]), (drawn.height, drawn.width)))
            words.append(f"{cosine:.3f}")
    save_image(grid(pictures, columns=1 + NEIGHBOURS, gap=GAP, words=words), out)
    return memorised(features, real)
