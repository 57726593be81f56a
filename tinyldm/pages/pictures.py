"""python -m tinyldm picture: previews over the training, the loss curve, and the nearest training images of samples."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from tinyldm.data.cache import naming, replacing
from tinyldm.data.transforms import load_image, resize
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.jobs.cli import Parser
from tinyldm.jobs.outputs import save, save_animation
from tinyldm.jobs.runlog import read_log
from tinyldm.pages.curves import STANDALONE, chart, loss_lines
from tinyldm.pages.report import spread, step_of
from tinyldm.scores.comparison import CLIP, Comparison
from tinyldm.scores.files import image_files

EXAMPLES = """examples:
  python -m tinyldm picture previews runs/toy-1 --out previews.gif        or .png: ten of them side by side
  python -m tinyldm picture curve runs/toy-1 --out loss.svg
  python -m tinyldm picture neighbours samples/test --train data/toy/train --clip tiny --out neighbours.png
"""


def labelled(images: list[Image.Image], words: list[str], columns: int, gap: int = 6) -> Image.Image:
    """Images of one size in rows on white, each with a word above it."""
    width, height = images[0].width + gap, images[0].height + gap + 12
    sheet = Image.new("RGB", (columns * width + gap, -(-len(images) // columns) * height + gap), "white")
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
        save(labelled([load_image(file) for file in shown], [step_of(file) for file in shown], min(5, len(shown))), out)


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
    return {"cosine of samples": near.median().item(), "cosine of training images": own.median().item(),
            "share": (near > own.quantile(0.95)).double().mean().item()}


def draw_neighbours(images: Path, train: Path, out: Path, clip: str, rows: int, device: str) -> dict[str, float]:
    """Samples, those most like a training image first, each with its four nearest training images and their cosines."""
    made, known = image_files(images), image_files(train)
    if not made or len(known) < 5:
        raise InputError(f"{images}, {train}: {len(made)} and {len(known)} images, expected at least 1 and 5")
    job = Comparison(made, references=known, clip=clip, device=pick_device(device))
    features, real = job.features("clip", made), job.features("clip", known)
    cosines, places = nearest(features, real, 4)
    pictures, words = [], []
    for k in cosines[:, 0].argsort(descending=True)[:rows].tolist():
        first = load_image(made[k])
        pictures += [first] + [resize(load_image(known[j]), (first.height, first.width)) for j in places[k]]
        words += [made[k].stem[:16]] + [f"{cosine:.3f}" for cosine in cosines[k]]
    save(labelled(pictures, words, 5), out)
    return memorised(features, real)


def add_arguments(parser):
    """The parts of the command and their options."""
    parser.epilog = EXAMPLES
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True, parser_class=Parser)
    for name, text in {"previews": "the previews of a run over its training, as .gif or side by side",
                       "curve": "the loss of a run as .svg", "neighbours": "is it memorising? samples beside the "
                       "training images nearest to them"}.items():
        part = parts.add_parser(name, help=text, description=text)
        if name == "neighbours":
            part.add_argument("images", metavar="IMAGES", type=Path, help="the folder of samples")
            part.add_argument("--train", metavar="DIR", type=Path, required=True, help="the folder of training images")
            part.add_argument("--clip", default=CLIP, help="tiny, a hub name or a folder: tells what is near")
            part.add_argument("--rows", type=int, default=8, help="samples to show, the most suspicious ones")
            part.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
        else:
            part.add_argument("run", metavar="RUN", type=Path, help="the run folder")
        part.add_argument("--out", metavar="FILE", type=Path, required=True, help="the picture to write")
        part.add_argument("--overwrite", action="store_true", help="replace it")


SUFFIXES = {"previews": (".gif", ".png", ".jpg"), "curve": (".svg",), "neighbours": (".png", ".jpg")}


def run(options):
    """Draw the picture asked for."""
    out = options.out
    if out.suffix not in SUFFIXES[options.part]:
        raise InputError(f"--out {out}: expected a name that ends in {' or '.join(SUFFIXES[options.part])}")
    if out.exists() and not options.overwrite:
        raise InputError(f"--out {out}: exists already; give another one, or --overwrite")
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.part == "neighbours":
        if options.rows < 1:
            raise InputError(f"--rows {options.rows}: expected 1 or more")
        found = draw_neighbours(options.images, options.train, out, options.clip, options.rows, options.device)
        print(f"median cosine with the nearest training image: {found['cosine of samples']:.3f}; of training images "
              f"with another one: {found['cosine of training images']:.3f}; {found['share']:.1%} of the samples are "
              "nearer than 95 % of those (about 5 % where nothing is memorised)")
    else:
        {"previews": draw_previews, "curve": draw_curve}[options.part](options.run, out)
    print(out)
