"""Draws the figures of chapter 2, without a trained run: guesses, arrows, kinds of prediction.

python docs/course/figures_02.py
"""

import numpy as np
import style
import torch

from tinyldm import NoiseSchedule
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.diffusion.schedule import Level
from tinyldm.toy.monsters import random_monster_images

MONSTERS = 2000
TIMES = (999, 985, 970, 950, 900, 700)


def best_guess(x, data, level):
    """E[x0 | x_t] of each x (b, d), where x0 is any of the rows of data (n, d)."""
    squares = data.square().sum(1)
    distance = level.alpha**2 * squares - 2 * level.alpha * x @ data.T  # less |x|^2
    return torch.softmax(-distance / (2 * level.sigma**2), 1) @ data


def guesses(out):
    """x_t of one monster, and the best guess of what it was, if it is one of MONSTERS."""
    drawn, _ = random_monster_images(MONSTERS, seed=1)
    data = torch.from_numpy(drawn).permute(0, 3, 1, 2).flatten(1) / 127.5 - 1
    eps = torch.randn(data[:1].shape, generator=torch.Generator().manual_seed(3))
    schedule = NoiseSchedule("cosine")
    rows = [[], []]
    for t in TIMES:
        level = schedule.level(t)
        x = level.alpha * data[:1] + level.sigma * eps
        rows[0].append(x.view(3, 64, 64))
        rows[1].append(best_guess(x, data, level).view(3, 64, 64))
    labels = [f"t = {t}" for t in TIMES]
    style.save(style.strip(rows, labels, ["$x_t$", "best guess"]), out, "02_guesses")


def spiral(n=60):
    """Data (n, 2) in the plane, with mean 0 and variance about 1."""
    a = torch.linspace(0.6, 3.4 * torch.pi, n)
    points = torch.stack([a * a.cos(), a * a.sin()], 1)
    points = points - points.mean(0)
    return points / points.std()


def arrows(out):
    """Noisy points, and where the best guess leads from them, at three levels of noise."""
    data = spiral()
    axis = torch.linspace(-2.4, 2.4, 17)
    places = torch.cartesian_prod(axis, axis)
    figure = style.figure(3.7)
    axes = figure.subplots(1, 3, sharey=True)
    for ax, sigma, scale in zip(axes, (1.5, 0.5, 0.15), (5, 2.5, 2), strict=True):
        level = Level(0, 1.0, sigma)  # x / alpha: data stays where it is
        way = best_guess(places, data, level) - places
        ax.quiver(
            *places.T,
            *way.T,
            angles="xy",
            scale_units="xy",
            scale=scale,
            color=style.MODEL,
            width=0.005,
            alpha=0.8,
        )
        ax.scatter(*data.T, color=style.DATA, s=14, zorder=3)
        ax.set(title=rf"$\sigma\,/\,\alpha = {sigma}$", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
        ax.set(aspect="equal", xticks=[], yticks=[])
    style.save(figure, out, "02_arrows")


def kinds(out):
    """How large an error of x0 an error of 1 in each kind of prediction makes, at each lambda."""
    lambdas = np.linspace(-4, 4, 161)
    figure = style.figure(3.6, width=7.5)
    ax = figure.subplots()
    colours = {"eps": style.NOISE, "x0": style.DATA, "v": style.MODEL, "flow": style.MORE[0]}
    for kind, colour in colours.items():
        errors = []
        for lambda_ in lambdas:
            level = Level.of_sigma(0, np.exp(-lambda_))
            one, zero = torch.ones(1), torch.zeros(1)
            errors.append(to_x0_eps(one, zero, level, kind)[0].abs().item())
        ax.plot(lambdas, errors, color=colour, label=kind)
    ax.set(yscale="log", ylim=(0.01, 30), xlim=(4, -4))
    ax.set(title="error of x0 for an error of 1 in what is predicted")
    ax.set_xlabel(r"$\lambda$: hardly any noise on the left, hardly any data on the right")
    ax.legend(loc="upper left", ncols=4)
    style.save(figure, out, "02_kinds")


if __name__ == "__main__":
    given = style.options(__doc__)
    guesses(given.out)
    arrows(given.out)
    kinds(given.out)
