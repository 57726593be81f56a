"""Draws the figures of chapter 3, without a trained run: paths, and the pace of each schedule.

python docs/course/figures_03.py
"""

import numpy as np
import style
import torch

from tinyldm import DDIM, NoiseSchedule, sample

MEANS, STD = (-1.0, 0.6, 1.4), 0.08  # the data: three narrow bells on a line, all alike likely
STEPS = 250


def guess(x, level):
    """E[x0 | x_t = x], x (n, 1), and the density of x_t at x."""
    means = torch.tensor(MEANS)
    variance = level.alpha**2 * STD**2 + level.sigma**2
    away = x - level.alpha * means
    bells = torch.exp(-(away**2) / (2 * variance)) / variance**0.5
    each = means + level.alpha * STD**2 / variance * away
    return (bells * each).sum(1, keepdim=True) / bells.sum(1, keepdim=True), bells.sum(1)


def background(ax, schedule):
    """The density of x_t in grey, each moment by itself: noise on the left, data on the right."""
    x = torch.linspace(-3, 3, 240).view(-1, 1)
    columns = [guess(x, level)[1] for level in schedule.grid(STEPS)[:-1]]
    density = torch.stack([column / column.max() for column in columns], 1).sqrt()
    extent = (1, 0, -3, 3)
    ax.imshow(
        density.numpy(),
        extent=extent,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        vmax=2.2,
        zorder=0,
    )


def flow(schedule, start):
    """x (steps + 1, n) of points that follow the mean velocity from these places in pure noise."""
    path = [start.squeeze(1)]

    def denoiser(x, t, condition):
        return guess(x, schedule.level(t[0].item()))[0]

    how = {"prediction": "x0", "noise": start, "callback": lambda i, x, x0: path.append(x[:, 0])}
    sample(denoiser, tuple(start.shape), schedule, DDIM(), steps=STEPS, **how)
    return torch.stack(path)


def paths(out):
    """Pairs of noise and data; what their mean velocity makes of it; the same on another path."""
    g = torch.Generator().manual_seed(4)
    n = 30
    start = torch.randn(n, 1, generator=g).sort(0).values
    bell = torch.randint(len(MEANS), (n, 1), generator=g)
    x0 = torch.tensor(MEANS)[bell] + STD * torch.randn(n, 1, generator=g)
    straight, cosine = NoiseSchedule("flow"), NoiseSchedule("cosine")
    time = np.linspace(1, 0, STEPS + 1)
    colours = [style.plt.cm.viridis(i / n) for i in range(n)]
    figure = style.figure(3.9)
    axes = figure.subplots(1, 3, sharey=True)
    titles = (
        "straight lines to one example each",
        "the mean velocity of all",
        "on the cosine path",
    )
    for ax, title, schedule in zip(axes, titles, (straight, straight, cosine), strict=True):
        background(ax, schedule)
        lines = (1 - time[:, None]) * x0.T.numpy() + time[:, None] * start.T.numpy()
        if ax is not axes[0]:
            lines = flow(schedule, start).numpy()
        for line, colour in zip(lines.T, colours, strict=True):
            ax.plot(time, line, color=colour, linewidth=1.3)
        ax.set(title=title, xlim=(1, 0), ylim=(-2.6, 2.6), xticks=[])
        ax.set_xlabel("noise, and on to data")
        ax.grid(False)
    axes[0].set_ylabel("x")
    style.save(figure, out, "03_paths")


def pace(out):
    """How often a level of noise is trained where t is drawn evenly, and how much it counts."""
    schedules = {
        "linear": (NoiseSchedule("linear"), "eps", style.NOISE),
        "cosine": (NoiseSchedule("cosine"), "v", style.DATA),
        "straight": (NoiseSchedule("flow"), "flow", style.MODEL),
        "straight, shift 1/3": (NoiseSchedule("flow", shift=1 / 3), "flow", style.MORE[0]),
    }
    lambdas = torch.linspace(-4.4, 4.4, 89, dtype=torch.float64)
    figure = style.figure(3.7)
    left, right = figure.subplots(1, 2)
    for name, (schedule, kind, colour) in schedules.items():
        around = [schedule.t_of_lambda(lambdas + shift) for shift in (-0.15, 0.15)]
        density = (around[0] - around[1]) / 0.3 / schedule.timesteps
        ratio = lambdas.exp()
        gain = {"eps": ratio, "v": (1 + ratio**2).sqrt(), "flow": 1 + ratio}[kind]
        left.plot(lambdas, density, color=colour, label=name)
        dashes = "-" if kind != "flow" or schedule.shift != 1 else (0, (4, 3))
        right.plot(
            lambdas, density * gain**2, color=colour, label=f"{name}, {kind}", linestyle=dashes
        )
    left.set(title="how often a level is trained", xlabel=r"$\lambda$", xlim=(4.4, -4.4))
    right.set(title="how much an error of x0 counts there", xlabel=r"$\lambda$", xlim=(4.4, -4.4))
    right.set(yscale="log", ylim=(1e-3, 200))
    right.legend(loc="upper right", fontsize=10)
    style.save(figure, out, "03_pace")


if __name__ == "__main__":
    given = style.options(__doc__)
    paths(given.out)
    pace(given.out)
