"""The figures of chapter 12: the way from a folder to a submission, and what is asked for.

python docs/course/figures_12.py
"""

from pathlib import Path
from random import Random

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from style import DATA, MODEL, MORE, NOISE, figure, options, save, show

from tinyldm.toy import landscapes
from tinyldm.toy.monsters import Monster, draw

DOCS = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 2.2, 1.0
BOXES = {  # name -> (column, row, colour, text)
    "folder": (0, 1, DATA, "the folder\nas handed out"),
    "kept": (1, 2, DATA, "held out\n--hold-out"),
    "cache": (1, 1, DATA, "latent cache\nencoded once"),
    "run": (2, 1, MODEL, "a run\ntrain.py"),
    "sweep": (3, 2, MORE[0], "which setting?\nsweep"),
    "samples": (3, 1, MODEL, "pictures\nsample.py"),
    "prompts": (2, 0, NOISE, "the test's prompts"),
    "scores": (3, 0, MORE[0], "scores\nevaluate"),
    "archive": (4, 1, NOISE, "the archive\nsubmit"),
}
ARROWS = (
    ("folder", "cache"),
    ("folder", "kept"),
    ("cache", "run"),
    ("run", "samples"),
    ("kept", "sweep"),
    ("run", "sweep"),
    ("sweep", "samples"),
    ("prompts", "samples"),
    ("samples", "scores"),
    ("samples", "archive"),
)


def box(ax: Axes, name: str) -> None:
    """A box with its text."""
    column, row, colour, text = BOXES[name]
    corner = (column * 3 - WIDTH / 2, row * 1.6 - HEIGHT / 2)
    ax.add_patch(
        FancyBboxPatch(
            corner,
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0.08,rounding_size=0.2",
            facecolor=colour,
            edgecolor=colour,
            alpha=0.18,
        )
    )
    ax.text(column * 3, row * 1.6, text, ha="center", va="center", fontsize=11)


def border(name: str, towards: str) -> tuple[float, float]:
    """Where the way from the middle of a box to another leaves it."""
    x, y = BOXES[name][0] * 3, BOXES[name][1] * 1.6
    dx, dy = BOXES[towards][0] * 3 - x, BOXES[towards][1] * 1.6 - y
    across = (WIDTH / 2 + 0.12) / abs(dx) if dx else np.inf
    along = (HEIGHT / 2 + 0.12) / abs(dy) if dy else np.inf
    share = min(across, along)
    return x + share * dx, y + share * dy


def path(out: Path) -> None:
    """From the download to the submission, in boxes."""
    made = figure(3.9, 10)
    ax = made.subplots()
    for name in BOXES:
        box(ax, name)
    for start, end in ARROWS:
        ax.annotate(
            "",
            border(end, start),
            border(start, end),
            arrowprops={"arrowstyle": "-|>", "color": "#555555"},
        )
    ax.set(xlim=(-1.4, 13.4), ylim=(-0.8, 4.0))
    ax.set_axis_off()
    save(made, out, "12_path")


def asked(out: Path) -> None:
    """What three of the assignments give, and what they want."""
    monster = draw(Monster("green", "ghost-like", "horns", 2), "jump", Random(1), 128)
    photo, labels, _ = landscapes.draw(0, 5)
    sheet = Image.open(DOCS / "iclevr_test.png").convert("RGB")  # 8 columns of 64 pixels, gaps of 2
    objects = sheet.crop((332, 2, 396, 66))
    made = figure(3, 10)
    axes = made.subplots(1, 4)
    show(axes[0], monster, "monsters: a caption")
    show(axes[1], objects, "i-CLEVR: a set of labels")
    show(axes[2], colormaps["tab20"](labels % 20)[..., :3], "landscapes: a map ...")
    show(axes[3], photo / 255, "... and what is wanted")
    save(made, out, "12_asked")


if __name__ == "__main__":
    given = options(__doc__)
    path(given.out)
    asked(given.out)
