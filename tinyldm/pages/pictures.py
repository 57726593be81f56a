"""python -m tinyldm picture: previews over the training, the loss curve, and the nearest training images of samples."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from tinyldm.data.images import load_image, resize
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.files import naming, replacing
from tinyldm.pages.curves import STANDALONE, chart, loss_lines
from tinyldm.pages.report import spread, step_of
from tinyldm.sampling.folder import save, save_animation
from tinyldm.scores.comparison import Comparison
from tinyldm.scores.files import image_files
from tinyldm.training.log import read_log


def labelled(
    images: list[Image.Image], words: list[str], columns: int, gap: int = 6
) -> Image.Image:
    """Images of one size in rows on white, each with a word above it."""
    width, height = images[0].width + gap, images[0].height + gap + 12
    sheet = Image.new(
        "RGB", (columns * width + gap, -(-len(images) // columns) * height + gap), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for k, (image, word) in enumerate(zip(images, words)):
        x, y = gap + k % columns * width, gap + k // columns * height
        pen.text((x, y), word, fill="black")
        sheet.paste(image, (x, y + 12))
    return sheet


def draw_previews(run: Path, out: Path) -> None:
    """The previews of a run: an animation, or at most ten side by side."""
    files = sorted((run / "previews").glob("step-*.png"))
    if not files:
        raise InputError(f"{run}: no previews there; expected {run}/previews/step-*.png")
    if out.suffix == ".gif":
        save_animation([load_image(file) for file in files], out)
    else:
        shown = spread(files, 10)
        save(
            labelled(
                [load_image(file) for file in shown],
                [step_of(file) for file in shown],
                min(5, len(shown)),
            ),
            out,
        )


def draw_curve(run: Path, out: Path) -> None:
    """The loss of a run, smoothed, on a log scale, as SVG."""
    rows = [(float(row[0]), float(row[1])) for row in read_log(run / "log.csv")]
    if not rows:
        raise InputError(f"{run / 'log.csv'}: no steps there")
    svg = chart(loss_lines(rows), "step", "loss, smoothed", log=True)
    with naming(out), replacing(out) as temporary:
        temporary.write_text(svg.replace("<svg ", f"<svg {STANDALONE} ", 1), encoding="utf-8")


def nearest(a: Tensor, b: Tensor, count: int, chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """The cosines (n, count) and rows of b that are nearest to each row of a (n, d), the nearest first."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    found = [(part @ b.T).topk(count, dim=1) for part in a.split(chunk)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def memorised(made: Tensor, train: Tensor) -> dict[str, float]:
    """How near features of samples (n, d) lie to training images (m, d), and how near those lie to one another.

    share: of the samples that are nearer to a training image than 95 % of the training images are to another one
    """
    step = max(1, len(train) // 2000)
    own = nearest(train[::step], train, 2)[0][:, 1]  # the nearest of all is the image itself
    near = nearest(made, train, 1)[0][:, 0]
    return {
        "cosine of samples": near.median().item(),
        "cosine of training images": own.median().item(),
        "share": (near > own.quantile(0.95)).double().mean().item(),
    }


def draw_neighbours(
    images: Path, train: Path, out: Path, clip: str, rows: int, device: str
) -> dict[str, float]:
    """Samples, those most like a training image first, each with its four nearest training images and their cosines."""
    made, known = image_files(images), image_files(train)
    if not made or len(known) < 5:
        raise InputError(
            f"{images}, {train}: {len(made)} and {len(known)} images, expected at least 1 and 5"
        )
    job = Comparison(files=made, references=known, clip=clip, device=pick_device(device))
    features, real = job.features("clip", made), job.features("clip", known)
    cosines, places = nearest(features, real, 4)
    pictures, words = [], []
    for k in cosines[:, 0].argsort(descending=True)[:rows].tolist():
        first = load_image(made[k])
        pictures += [first] + [
            resize(load_image(known[j]), (first.height, first.width)) for j in places[k]
        ]
        words += [made[k].stem[:16]] + [f"{cosine:.3f}" for cosine in cosines[k]]
    save(labelled(pictures, words, 5), out)
    return memorised(features, real)
