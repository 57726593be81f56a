"""Draws docs/pipeline.png, the library in boxes: python docs/draw_pipeline.py --run runs/toy-1

The pictures in it are of that run: a drawing of its data, noised, and what it draws.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

import tinyldm
from tinyldm.model import Model

CAPTION = "Green slime with horns and one eye, standing."
T_TRAINED = 500  # the noise level of the training's picture
SEED = 1
STEPS = 20
SEEN = STEPS // 2 + 1  # the place in the grid of the x_t that is shown
SYMBOLS = {  # what is predicted and what it is, as in docs/notation.md
    "eps": (r"\epsilon", ""),
    "x0": ("x_0", ""),
    "v": ("v", r"$v = \alpha_t\,\epsilon - \sigma_t\,x_0$"),
    "flow": ("u", r"$u = \epsilon - x_0$"),
}
SIZE = (17.0, 7.4)  # units, a hundred pixels each
FILLS = {  # fill, edge, words
    "frozen": ("#e4e9f0", "#8a99ad", "#24303f"),
    "trained": ("#4f46e5", "#3730a3", "#ffffff"),
    "rule": ("#fdf1d3", "#c99a2e", "#4a3606"),
}
INK, LINE = "#24303f", "#5b6b7f"
MONO = "DejaVu Sans Mono"
ARROW = {
    "arrowstyle": "-|>",
    "mutation_scale": 13,
    "color": LINE,
    "lw": 1.6,
    "shrinkA": 0,
    "shrinkB": 0,
}
SCHEDULE = "diffusion/schedule.py"
Point = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/toy-1")
    parser.add_argument("--data", type=Path, default=Path("data/toy"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pipeline.png")
    options = parser.parse_args()
    model = tinyldm.load(options.run, device="cpu")
    pictures = thumbnails(model, options.data)
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=SIZE, dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.axis("off")
    axes.add_patch(rounded((0.05, 0.05), SIZE[0] - 0.1, SIZE[1] - 0.1, "#fbfcfe", edge="#d0d7de"))
    draw(axes, pictures, model)
    figure.savefig(options.out, transparent=True)
    shrink(options.out)
    print(options.out)


def thumbnails(model: Model, data: Path) -> dict[str, Image.Image]:
    """The pictures of the drawing."""
    real = Image.open(sorted((data / "train").glob("*.png"))[0]).convert("RGB")
    x0 = model.encode(real)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(SEED))
    level = model.schedule.level(T_TRAINED)
    steps = list(model.stream(CAPTION, steps=STEPS, seed=SEED))
    return {
        "real": real,
        "noised": model.decode(level.alpha * x0 + level.sigma * eps),
        "noise": model.decode(eps),
        "half": steps[SEEN - 1].noisy[0],
        "drawn": steps[-1].pictures[0],
    }


def draw(axes: Axes, pictures: dict[str, Image.Image], model: Model) -> None:
    """Training above, sampling below, and between them what both share: words and network."""
    top, middle, bottom = 5.75, 3.65, 1.75
    symbol, meaning = SYMBOLS[model.checkpoint.prediction]
    for y, name in ((top, "Training"), (bottom, "Sampling")):
        axes.text(0.35, y + 1.12, name, fontsize=15, fontweight="bold", color=INK, va="center")

    # training
    picture(axes, pictures["real"], (1.15, top), "a picture")
    box(axes, (3.3, top), "VAE encoder", "autoencoder/kl.py", kind="frozen")
    box(
        axes,
        (6.3, top),
        r"$x_t = \alpha_t\,x_0 + \sigma_t\,\epsilon$",
        SCHEDULE,
        kind="rule",
        width=2.7,
    )
    picture(axes, pictures["noised"], (8.85, top), f"$x_t$ at t = {T_TRAINED}")
    box(axes, (14.0, top), "loss", "diffusion/loss.py", kind="rule", width=2.5)
    arrow(axes, (1.85, top), (2.2, top))
    arrow(axes, (4.4, top), (4.95, top), "$x_0$")
    arrow(axes, (7.65, top), (8.15, top))
    arrow(axes, (9.55, top), (10.15, top))
    arrow(axes, (12.05, top), (12.75, top), rf"$\hat {symbol}$")
    axes.text(15.4, top, rf"$\|\hat {symbol} - {symbol}\|^2$", fontsize=13, color=INK, va="center")
    axes.text(14.0, top - 0.88, meaning, fontsize=11, color=INK, ha="center", va="center")

    # what both share
    words = "“Green slime with horns\nand one eye, standing.”"
    here = {"color": INK, "ha": "center", "va": "center"}
    axes.text(2.1, middle + 0.12, words, fontsize=10.5, style="italic", **here)
    axes.text(2.1, middle - 0.4, "a caption, or your prompt", fontsize=10, **here)
    box(axes, (5.2, middle), "text encoder", "frozen/text.py", kind="frozen")
    arrow(axes, (3.6, middle), (4.1, middle))
    arrow(axes, (6.3, middle), (10.15, middle), "tokens, to cross-attention")
    axes.add_patch(rounded((10.15, 0.75), 1.9, 5.9, *FILLS["trained"][:2]))
    axes.text(11.1, 4.3, "UNet", fontsize=17, fontweight="bold", color="white", ha="center")
    axes.text(11.1, 3.95, "nn/unet.py", fontsize=9.5, color="#dcdafc", ha="center", family=MONO)
    words = "the only part\nthat is trained"
    axes.text(11.1, 3.2, words, fontsize=10, color="white", ha="center", va="center")

    # sampling
    right, high, low = 13.3, bottom + 0.6, bottom - 0.6
    picture(axes, pictures["noise"], (1.15, bottom), "noise, by the seed")
    t = model.schedule.grid(STEPS)[SEEN].t
    picture(axes, pictures["half"], (8.85, bottom), f"$x_t$ at t = {t:.0f}")
    arrow(axes, (1.85, bottom), (8.15, bottom))
    arrow(axes, (9.55, bottom), (10.15, bottom))
    box(axes, (right, high), "guidance", "diffusion/guidance.py", kind="rule", height=0.85)
    box(axes, (right, low), "solver", "diffusion/dpm_solver.py", kind="rule", height=0.85)
    arrow(axes, (12.05, high), (right - 1.1, high))
    arrow(axes, (right, high - 0.43), (right, low + 0.43))
    again(axes, (right, low - 0.43), (8.85, bottom - 0.98), 0.42)
    box(
        axes, (15.7, low), "VAE decoder", "autoencoder/kl.py", kind="frozen", width=2.0, height=0.85
    )
    arrow(axes, (right + 1.1, low), (14.7, low))
    picture(axes, pictures["drawn"], (15.7, bottom + 1.05), "")
    arrow(axes, (15.7, low + 0.43), (15.7, bottom + 0.33))


def rounded(corner: Point, width: float, height: float, fill: str, edge: str) -> FancyBboxPatch:
    """A rectangle with round corners."""
    style = "round,pad=0,rounding_size=0.12"
    return FancyBboxPatch(corner, width, height, boxstyle=style, fc=fill, ec=edge, lw=1.3)


def box(
    axes: Axes,
    centre: Point,
    title: str,
    file: str,
    kind: str,
    width: float = 2.2,
    height: float = 1.1,
) -> None:
    """A part of the library: what it is, and the file that it is in."""
    fill, edge, words = FILLS[kind]
    x, y = centre
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(rounded(corner, width, height, fill, edge=edge))
    note = f"{file}, frozen" if kind == "frozen" else file
    axes.text(x, y + 0.14, title, fontsize=12, color=words, ha="center", va="center")
    axes.text(x, y - 0.22, note, fontsize=8, color=words, ha="center", va="center", family=MONO)


def picture(axes: Axes, image: Image.Image, centre: Point, label: str) -> None:
    """A thumbnail in a frame, with a label below it."""
    x, y = centre
    extent = (x - 0.7, x + 0.7, y - 0.7, y + 0.7)
    axes.imshow(image, extent=extent, interpolation="nearest", zorder=3, aspect="auto")
    frame = ((x - 0.7, y - 0.7), 1.4, 1.4)
    axes.add_patch(plt.Rectangle(*frame, fill=False, ec="#c3cad4", lw=1.2, zorder=4))
    axes.text(x, y - 0.88, label, fontsize=10, color=INK, ha="center", va="center")


def arrow(axes: Axes, start: Point, end: Point, label: str = "") -> None:
    """A straight arrow, with a label above its middle."""
    axes.add_patch(FancyArrowPatch(start, end, **ARROW))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(x, y + 0.2, label, fontsize=11, color=INK, ha="center", va="center")


def again(axes: Axes, start: Point, end: Point, below: float) -> None:
    """The way back from the solver to the next x_t, around the network."""
    y = start[1] - below
    axes.plot([start[0], start[0], end[0]], [start[1], y, y], color=LINE, lw=1.6)
    axes.add_patch(FancyArrowPatch((end[0], y), end, **ARROW))
    words = "$x_s$ is the next $x_t$, at every step"
    axes.text(6.6, y, words, fontsize=11, color=INK, ha="center", va="center")


def shrink(file: Path) -> None:
    """A palette is enough for it, and a third of the bytes."""
    with Image.open(file) as image:
        small = image.convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE)
    small.save(file, optimize=True)


if __name__ == "__main__":
    main()
