"""The figures of chapter 10: a distance that depends on the count, and a search for copies.

python docs/course/figures_10.py --run runs/toy-1
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from style import DATA, MODEL, NOISE, TRUTH, figure, options, save, show
from torch import Tensor

import tinyldm
from tinyldm.data.images import load_image, to_bytes
from tinyldm.frozen.image import ClipScorer
from tinyldm.pages.pictures import nearest
from tinyldm.scores.attributes import drawings
from tinyldm.scores.distances import frechet, statistics
from tinyldm.tasks.base import read_requests
from tinyldm.toy.monsters import write_toy

COUNTS = (100, 150, 250, 400, 700, 1200, 2000)
REAL, REPEATS = 4000, 4
DRAWN, STEPS, SHOWN, NEXT = 48, 10, 3, 4


def features(scorer: ClipScorer, pictures: Tensor) -> Tensor:
    """The vectors (n, d) of pictures (n, 3, 64, 64) uint8, as large as the tiny CLIP takes them."""
    found = []
    for part in pictures.split(100):
        found.append(scorer.embed((part.float() / 255 - scorer.mean) / scorer.std))
    return torch.cat(found)


def distances(a: Tensor, b: Tensor) -> list[list[float]]:
    """For each of COUNTS the distances of so many rows of each, several times."""
    generator, rows = torch.Generator().manual_seed(0), []
    for n in COUNTS:
        row = []
        for _ in range(REPEATS):
            first = a[torch.randperm(len(a), generator=generator)[:n]]
            second = b[torch.randperm(len(b), generator=generator)[:n]]
            row.append(frechet(statistics(first), statistics(second)))
        rows.append(row)
    return rows


def bias(scorer: ClipScorer, out: Path) -> None:
    """The Fréchet distance of n pictures: of real ones from real ones, and of blurred ones."""
    real = drawings(REAL, seed=1)[0]
    half = features(scorer, real)
    soft = F.avg_pool2d(real[REAL // 2 :].float(), 3, stride=1, padding=1, count_include_pad=False)
    softened = soft.round().to(torch.uint8)
    pairs = {
        "real and other real pictures": (half[: REAL // 2], half[REAL // 2 :], DATA),
        "real and blurred ones": (half[: REAL // 2], features(scorer, softened), NOISE),
    }
    made = figure(4, 10)
    left, right = made.subplots(1, 2)
    for name, (a, b, colour) in pairs.items():
        rows = torch.tensor(distances(a, b))
        middle, spread = rows.mean(1), rows.std(1)
        left.errorbar(COUNTS, middle, spread, color=colour, marker="o", label=name)
        inverse = 1 / torch.tensor(COUNTS, dtype=torch.float64)
        right.plot(inverse, middle, "o", color=colour)
        known = inverse[-4:]  # the largest four counts
        design = torch.stack([torch.ones_like(known), known], 1)
        solved = torch.linalg.lstsq(design, middle[-4:, None].double()).solution
        start, slope = solved.flatten().tolist()
        line = torch.tensor([0, inverse[0].item()])
        right.plot(line, start + slope * line, "--", color=colour)
        print(f"{name}: {middle[0]:.4f} at n = {COUNTS[0]}, {middle[-1]:.4f} at {COUNTS[-1]}")
        print(f"    the line through the last four meets 1/n = 0 at {start:.4f}")
    left.set(xscale="log", xlabel="pictures on each side, n", ylabel="Fréchet distance")
    left.set_ylim(0)
    left.legend()
    right.axhline(0, color=TRUTH, linewidth=1)
    right.set(xlabel="1 / n", title="the same, towards infinitely many")
    save(made, out, "10_bias")


def training_set(folder: Path) -> Tensor:
    """The training pictures of the toy set, uint8, which are the same wherever it is drawn."""
    write_toy(folder / "toy")
    files = sorted((folder / "toy" / "train").glob("*.png"))
    return torch.stack([to_bytes(load_image(file)) for file in files])


def copies(scorer: ClipScorer, run: Path, out: Path) -> None:
    """Does a run copy? How near its pictures are to training pictures, and the nearest ones."""
    with TemporaryDirectory() as folder:
        train = training_set(Path(folder))
        requests = read_requests(Path(folder) / "toy" / "test.json")[:DRAWN]
    model = tinyldm.load(run, device="cpu")
    drawn = model([request.prompt for request in requests], steps=STEPS, seed=1)
    samples = torch.stack([to_bytes(image) for image in drawn])
    known, seen = features(scorer, train), features(scorer, samples)
    cosines, places = nearest(seen, known, NEXT)
    among = nearest(known[::4], known, 2)[0][:, 1]  # the first is the picture itself
    bins = torch.linspace(0.85, 1, 31).tolist()
    made = figure(7.4, 8)
    top, bottom = made.subfigures(2, 1, height_ratios=(1, 1.7))
    ax = top.subplots()
    for values, colour, name in (
        (among, DATA, "training pictures and the nearest other one"),
        (cosines[:, 0], MODEL, "drawn pictures and the nearest training picture"),
    ):
        ax.hist(values.tolist(), bins, density=True, alpha=0.6, color=colour, label=name)
    ax.set(xlabel="cosine of the nearest", yticks=[])
    ax.legend(loc="upper left")
    axes = bottom.subplots(SHOWN, 1 + NEXT)
    worst = cosines[:, 0].argsort(descending=True)[:SHOWN].tolist()
    for row, sample in zip(axes, worst, strict=True):
        show(row[0], drawn[sample], "drawn")
        nearby = zip(row[1:], places[sample].tolist(), cosines[sample].tolist(), strict=True)
        for ax, place, cosine in nearby:
            show(ax, train[place].float() / 127.5 - 1, f"{cosine:.3f}")
    save(made, out, "10_copies")
    near = cosines[:, 0] > among.quantile(0.95)
    print(f"nearer than 95 % of training pictures are to another: {near.double().mean():.0%}")


if __name__ == "__main__":
    given = options(__doc__)
    clip = ClipScorer.load("tiny")
    bias(clip, given.out)
    copies(clip, given.run, given.out)
