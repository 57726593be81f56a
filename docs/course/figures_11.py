"""The figures of chapter 11: editing with a trained run, ways between noises, and consistency.

python docs/course/figures_11.py --run runs/toy-1
"""

from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageOps
from style import DATA, MODEL, NOISE, TRUTH, figure, options, save, strip
from torch import Tensor

import tinyldm
from tinyldm import DDIM, Guidance, NoiseSchedule, sample
from tinyldm.methods.editing import invert
from tinyldm.methods.interpolation import slerp
from tinyldm.toy.monsters import Monster, draw

STEPS, COLUMNS = 16, 6
BLUE = "Blue square monster with a pair of eyes and a golden crown."
RED = BLUE.replace("Blue", "Red")
HORNS = BLUE.replace("a golden crown", "horns")
GHOST = BLUE.replace("square", "ghost-like")


# ---- editing


@torch.no_grad()
def drawn_from(model: tinyldm.Model, noise: Tensor, prompts: list[str], scale: float, grid):
    """The pictures of prompts, drawn down a grid from the noise (b, c, h, w)."""
    with torch.autocast("cpu", torch.bfloat16):
        x0 = sample(
            model.network,
            noise.shape,
            model.schedule,
            condition=model.text_encoder.encode(prompts),
            prediction=model.checkpoint.prediction,
            guidance=Guidance(scale, model.checkpoint.null),
            spacing=grid,
            noise=noise,
        )
    return model.decode(x0)


@torch.no_grad()
def inverted(model: tinyldm.Model, picture: Image.Image, grid) -> Tensor:
    """The noise (1, c, h, w) that leads to a picture under the prompt BLUE."""
    x0 = model.encode([picture])
    shown = model.text_encoder.encode([BLUE])
    with torch.autocast("cpu", torch.bfloat16):
        how = {"condition": shown, "prediction": model.checkpoint.prediction}
        return invert(model.network, x0, model.schedule, grid, **how)


def editing(model: tinyldm.Model, out: Path) -> None:
    """Image to image, inpainting, and inversion, a row each."""
    picture = draw(Monster("blue", "square", "crown", 2), "main", Random(0), model.size[0])
    mask = Image.new("L", picture.size)
    mask.paste(255, (0, 0, picture.width, picture.height * 9 // 20))
    framed = ImageOps.expand(mask.crop((1, 1, mask.width - 1, mask.height - 1)), 1, 160)
    strengths = (0.3, 0.5, 0.7, 0.85, 1.0)
    again = [model(RED, init=picture, strength=s, steps=STEPS, seed=1)[0] for s in strengths]
    filled = model([HORNS] * 4, init=picture, mask=mask, steps=STEPS, seed=1)
    grid = model.schedule.grid(STEPS)
    noise = inverted(model, picture, grid)
    back = drawn_from(model, noise, [BLUE], 1.0, grid=grid)
    others = drawn_from(model, noise.expand(3, -1, -1, -1), [BLUE, RED, GHOST], 3.0, grid=grid)
    seen = model.decode(noise.clamp(-3, 3))
    rows = [[picture, *again], [picture, framed, *filled], [picture, *seen, *back, *others]]
    made = strip(rows, names=["image to image", "inpainting", "inversion"], size=1.6)
    words = [
        ["given", *(f"strength {s:g}" for s in strengths)],
        ["given", "white: drawn", *["horns"] * 4],
        ["given", "its noise", "back again", "guidance 3", "red", "ghost-like"],
    ]
    for ax, word in zip(made.axes, chain(*words), strict=True):
        ax.set_xlabel(word, fontsize=10)
    save(made, out, "11_editing")


def between(model: tinyldm.Model, out: Path) -> None:
    """From one noise to another, over the sphere and straight; without a caption."""
    c, h, w = model.checkpoint.config["latent_shape"]
    first, second = torch.randn(2, 1, c, h, w, generator=torch.Generator().manual_seed(4))
    share = torch.linspace(0, 1, COLUMNS)
    weight = share.view(-1, 1, 1, 1)
    ways = {
        "on the sphere": slerp(first, second, share),
        "straight": (1 - weight) * first + weight * second,
    }
    grid, rows = model.schedule.grid(STEPS), []
    for noise in ways.values():
        rows.append(drawn_from(model, noise, [""] * COLUMNS, 1.0, grid=grid))
    save(strip(rows, [f"{s:.0%}" for s in share], list(ways), size=1.6), out, "11_between")


# ---- consistency, for data that is one of two values, a little blurred

MEANS, SIZE = (-1.0, 1.0), 0.15


def expected_x0(x: Tensor, level) -> Tensor:
    """The mean of all x0 that may lie under x_t, for the mixture of two Gaussians."""
    variance = level.alpha**2 * SIZE**2 + level.sigma**2
    likely, guesses = [], []
    for mean in MEANS:
        away = x - level.alpha * mean
        likely.append(-(away**2) / (2 * variance))
        guesses.append(mean + level.alpha * SIZE**2 / variance * away)
    weights = torch.stack(likely).softmax(0)
    return (weights * torch.stack(guesses)).sum(0)


def flow(x: Tensor, schedule: NoiseSchedule, grid) -> tuple[Tensor, list[Tensor]]:
    """Where DDIM with many steps leads x, and all that it passes."""
    passed = [x]

    def denoiser(x_t: Tensor, t: Tensor, condition) -> Tensor:
        return expected_x0(x_t, schedule.level(float(t[0])))

    end = sample(
        denoiser,
        x.shape,
        schedule,
        DDIM(),
        prediction="x0",
        spacing=grid,
        noise=x,
        dtype=torch.float64,
        callback=lambda step, x_s, x0: passed.append(x_s),
    )
    return end, passed


def consistency(out: Path) -> None:
    """Trajectories of the flow in one dimension, and what f and the denoiser say of x_t."""
    schedule = NoiseSchedule("cosine")
    grid = schedule.grid(500)
    starts = torch.linspace(-2.4, 2.4, 21, dtype=torch.float64)[:, None]
    _, passed = flow(starts, schedule, grid)
    made = figure(4.4, 10)
    left, right = made.subplots(1, 2)
    ways = torch.stack(passed)[:, :, 0].numpy()
    times = np.array([level.t for level in grid])
    for k, way in enumerate(ways.T):
        left.plot(
            times, way, color=DATA, linewidth=1, alpha=0.7, label="the flow" if k == 0 else ""
        )
    left.invert_xaxis()
    left.set(xlabel="t, from noise to data", ylabel="$x_t$", title="21 trajectories")
    x = torch.linspace(-2.4, 2.4, 201, dtype=torch.float64)[:, None]
    place = 300  # of the grid, at t = 399
    end, _ = flow(x, schedule, grid[place:])
    right.plot(x[:, 0], end[:, 0], color=MODEL, label="where the flow ends: $f(x_t, t)$")
    mean = expected_x0(x, grid[place])[:, 0]
    right.plot(x[:, 0], mean, color=NOISE, label="the mean of all $x_0$ under $x_t$")
    first = expected_x0(x, grid[0])[:, 0]
    right.plot(x[:, 0], first, color=NOISE, linestyle=":", label="the same at t = 999")
    right.axhline(0, color=TRUTH, linewidth=0.8)
    right.set(xlabel="$x_t$", title=f"two answers, at t = {grid[place].t:.0f}", ylim=(-1.6, 2.2))
    right.legend(loc="upper left", fontsize=10)
    save(made, out, "11_consistency")


if __name__ == "__main__":
    given = options(__doc__)
    consistency(given.out)
    trained = tinyldm.load(given.run, device="cpu")
    editing(trained, given.out)
    between(trained, given.out)
