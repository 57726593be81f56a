"""One look for the figures of the course: colours, strips of pictures, small files.

A script figures_NN.py asks options() where to write, draws on figure(), and ends with save().
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FIGURES = Path(__file__).parent / "figures"
DATA = "#0072B2"  # blue: data, and what comes from it alone
NOISE = "#D55E00"  # vermilion: noise
MODEL = "#7B3294"  # violet: what a network says
TRUTH = "#444444"  # grey: what is known exactly
MORE = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9")  # for further curves; all can be told apart
MOST_BYTES = 150 * 1024

plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "lines.linewidth": 2,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)


def options(description: str | None) -> argparse.Namespace:
    """The options of a script of figures: --run, a trained run, and --out, where they go."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/toy-1"), help="a trained run")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def figure(height: float, width: float = 10.0) -> Figure:
    """An empty figure, in inches of 120 pixels."""
    return plt.figure(figsize=(width, height), dpi=120, layout="constrained")


def pixels(image: torch.Tensor | Image.Image | np.ndarray) -> np.ndarray:
    """An array (h, w, 3) in [0, 1], of a PIL image, an array, or a tensor (c, h, w) in [-1, 1]."""
    if isinstance(image, torch.Tensor):
        image = (image.detach().float().clamp(-1, 1).permute(1, 2, 0).numpy() + 1) / 2
    elif isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return np.broadcast_to(image, (*image.shape[:2], 3))


def show(ax: Axes, image: torch.Tensor | Image.Image | np.ndarray, label: str = "") -> None:
    """A picture without axes, its pixels as they are, and a label beneath it."""
    ax.imshow(pixels(image), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(label)


def strip(
    rows: Sequence[Sequence], labels: Sequence[str] = (), names: Sequence[str] = (), size=1.7
) -> Figure:
    """Rows of pictures, such as [[x at t = 0, x at t = 250, ...], ...].

    labels stand beneath the columns ("t = 250"), names to the left of the rows; size is the side
    of a picture in inches, and shrinks where the row would be wider than a page.
    """
    n = max(len(row) for row in rows)
    side = min(size, 9.4 / n)
    made = figure(height=side * len(rows) + 0.45, width=side * n + 0.6)
    axes = made.subplots(len(rows), n, squeeze=False)
    for i, row in enumerate(rows):
        for j in range(n):
            axes[i, j].set_axis_off()
        for j, image in enumerate(row):
            axes[i, j].set_axis_on()
            last = i == len(rows) - 1
            show(axes[i, j], image, labels[j] if last and labels else "")
        if names:
            axes[i, 0].set_ylabel(names[i])
    return made


def save(made: Figure, out: Path, name: str) -> None:
    """Write out/name.png and say so: in 256 colours if the file would be too large otherwise."""
    buffer = io.BytesIO()
    made.savefig(buffer)
    plt.close(made)
    picture = Image.open(buffer).convert("RGB")
    file = Path(out) / f"{name}.png"
    picture.save(file, optimize=True)
    if file.stat().st_size > MOST_BYTES:
        picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {picture.width} x {picture.height}, {file.stat().st_size // 1024} KiB")
