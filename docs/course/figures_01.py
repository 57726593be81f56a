"""Draws the figures of chapter 1, without a trained run: forward, schedules, sizes.

python docs/course/figures_01.py
"""

import numpy as np
import style
import torch

from tinyldm import NoiseSchedule
from tinyldm.toy.monsters import Monster, draw

MONSTER = Monster("green", "ghost-like", "horns", 2)
TIMES = (0, 250, 500, 750, 999)
SCHEDULES = {
    "cosine": (NoiseSchedule("cosine"), style.DATA),
    "linear": (NoiseSchedule("linear"), style.NOISE),
    "straight": (NoiseSchedule("flow"), style.MODEL),
}


def monster(size=64):
    """x0 (3, size, size) in [-1, 1]."""
    drawn = np.array(draw(MONSTER, size=size))
    return torch.from_numpy(drawn).float().permute(2, 0, 1) / 127.5 - 1


def forward(out):
    """One picture and one noise, at five times of three schedules."""
    x0 = monster()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for schedule, _ in SCHEDULES.values():
        levels = [schedule.level(t) for t in TIMES]
        rows.append([level.alpha * x0 + level.sigma * eps for level in levels])
    labels = [f"t = {t}" for t in TIMES]
    style.save(style.strip(rows, labels, list(SCHEDULES)), out, "01_forward")


def schedules(out):
    """What is left of the data, and lambda, against t."""
    figure = style.figure(3.9)
    left, right = figure.subplots(1, 2)
    for name, (schedule, colour) in SCHEDULES.items():
        t = torch.arange(schedule.timesteps)
        level = schedule.level(t)
        left.plot(t, level.alpha, color=colour, label=name)
        left.plot(t, level.sigma, color=colour, linestyle="--")
        right.plot(t, level.alpha.log() - level.sigma.log(), color=colour, label=name)
    left.set(title=r"$\alpha_t$ (solid) and $\sigma_t$ (dashed)", xlabel="t")
    right.set(title=r"$\lambda_t = \log(\alpha_t\,/\,\sigma_t)$", xlabel="t", ylim=(-6, 6))
    right.legend(loc="upper right")
    right.axhline(0, color=style.TRUTH, linewidth=1)
    right.annotate("as much noise as data", (990, 0.15), ha="right", color=style.TRUTH)
    style.save(figure, out, "01_schedules")


def sizes(out):
    """The same monster at four sizes, all at the same level of noise."""
    g = torch.Generator().manual_seed(0)
    level = NoiseSchedule("cosine").level(700)
    pictures = []
    for size in (32, 64, 128, 256):
        x0 = monster(size)
        pictures.append(level.alpha * x0 + level.sigma * torch.randn(x0.shape, generator=g))
    labels = [f"{2**k} x {2**k} pixels" for k in (5, 6, 7, 8)]
    style.save(style.strip([pictures], labels, size=2.3), out, "01_sizes")


if __name__ == "__main__":
    given = style.options(__doc__)
    forward(given.out)
    schedules(given.out)
    sizes(given.out)
