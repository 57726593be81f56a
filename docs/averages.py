"""How near an average of each length comes to the one asked for, and what it draws.

    python docs/averages.py                # a table
    python docs/averages.py runs/toy-1     # docs/averages.png, of a run with --post-hoc-ema

The table is for runs that saved the two kept lengths with 4, 8 and 16 checkpoints: the error of the
profile, as a share of it, and in brackets the sum of the sizes of the coefficients. The picture
shows profiles that are put together from 8 checkpoints, and below them one prompt from one noise,
drawn by the averages of the run.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from tinyldm.methods.power_ema import LENGTHS, Profile, synthesis
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed
from tinyldm.sampling.settings import Drawing
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import task_of
from tinyldm.training.frozen_models import load_frozen

WANTED = (0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.25)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
SHOWN = (0.03, 0.07, 0.15, 0.25)  # profiles that are not kept
PROMPT = "Pixel art of a red star-shaped monster with ivory horns and one eye."
CPU = torch.device("cpu")


def kept(count: int) -> list[Profile]:
    """What a run with so many checkpoints has saved."""
    return [Profile(s, (k + 1) / count) for k in range(count) for s in LENGTHS]


def print_table() -> None:
    """The errors of all lengths."""
    print("| checkpoints |", " | ".join(f"{length:g}" for length in WANTED), "|")
    print("| --- |" + " --- |" * len(WANTED))
    for count in (4, 8, 16):
        cells = []
        for length in WANTED:
            x, error = synthesis(kept(count), Profile(length, 1.0))
            cells.append(f"{error:.1%} ({sum(map(abs, x)):.1f})")
        print(f"| {count} |", " | ".join(cells), "|")


def density(profile: Profile, tau: np.ndarray) -> np.ndarray:
    """The weight of each time tau in an average."""
    share = np.where(tau <= profile.t, tau / profile.t, 0.0)
    return (profile.gamma + 1) / profile.t * share**profile.gamma


def draw_profiles(axis: Axes) -> None:
    """Profiles of several lengths, and what comes nearest to them."""
    tau = np.linspace(0, 1, 1001)
    averages = kept(8)
    for length, colour in zip(SHOWN, COLOURS, strict=True):
        wanted = Profile(length, 1.0)
        x, error = synthesis(averages, wanted)
        made = sum(c * density(each, tau) for c, each in zip(x, averages, strict=True))
        axis.plot(tau, density(wanted, tau), color=colour, lw=4, alpha=0.3)
        axis.plot(tau, made, color=colour, lw=1.2, label=f"{length:g} (error {error:.0%})")
    axis.set(xlabel="optimiser step, as a share of the run", ylabel="weight in the average")
    axis.set(xlim=(0.3, 1), ylim=(-3, 24))
    axis.grid(alpha=0.3)
    axis.legend(title="length: asked for (broad), put together (thin)", fontsize=9)


def drawn(run: Path, length: float | None) -> Image.Image:
    """The prompt, drawn by the average of a length, or by that of --ema."""
    checkpoint = load_averaged(run, CPU, length)
    task = task_of(checkpoint.config)
    models = load_frozen(checkpoint.config, CPU, checkpoint.path)
    painter = Painter.of(checkpoint, models.vae, task, Drawing(steps=25), device=CPU)
    condition = encode_prompts(models.encoder, [task.prompt(PROMPT)])
    (picture,) = painter.draw(condition, [picture_seed(0, 0)])
    return picture


def draw(run: Path, out: Path) -> None:
    """Profiles above, pictures below."""
    figure = plt.figure(figsize=(9, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 1.25))
    draw_profiles(above.subplots())
    lengths = (None, *WANTED)
    for axis, length in zip(below.subplots(1, len(lengths)), lengths, strict=True):
        axis.imshow(drawn(run, length), interpolation="nearest")
        axis.set_title("saved" if length is None else f"{length:g}", fontsize=10)
        axis.axis("off")
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="of --post-hoc-ema: draw the picture")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    if options.run is None:
        print_table()
    else:
        draw(options.run, options.out)


if __name__ == "__main__":
    main()
