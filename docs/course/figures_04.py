"""Figures of chapter 4: the network with its shapes, what levels and skips are for, time."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import style
import torch
import torch.nn.functional as F
from matplotlib.patches import FancyBboxPatch

import tinyldm
from tinyldm import Condition, NoiseSchedule, UNet
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.nn.blocks import Downsample, ResBlock, Sinusoidal, Transformer, Upsample
from tinyldm.toy.monsters import Monster, draw
from tinyldm.training.presets import PRESETS

MONSTER = Monster("green", "star-shaped", "horns", 2)
PROMPT = "Green star-shaped monster with horns and two eyes. The monster is standing still."
LATENT = (12, 16, 16)  # of the tiny autoencoder
COLOURS = {
    "conv": "#d9d9d9",
    "ResBlock": style.MORE[3],
    "Transformer": "#c9a3d6",
    "Downsample": style.MORE[1],
    "Upsample": style.MORE[1],
}


def trace(network: UNet) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    """What a call passes through: (part of the network, kind, shape in, shape out)."""
    seen = []

    def hook(name, kind):
        def note(module, args, out):
            seen.append((name, kind, tuple(args[0].shape[1:]), tuple(out.shape[1:])))

        return note

    kinds = (ResBlock, Transformer, Downsample, Upsample)
    for name, module in network.named_modules():
        if isinstance(module, kinds) or name in ("conv_in", "conv_out"):
            kind = "conv" if name.startswith("conv") else type(module).__name__
            module.register_forward_hook(hook(name.split("_")[0], kind))
    tokens = torch.zeros(1, 14, network.config.token_dim)
    with torch.no_grad():
        network(torch.zeros(1, *LATENT), torch.zeros(1), Condition(tokens=tokens))
    return seen


def joined(seen: list) -> list[tuple[int, int, int]]:
    """The skips, as (from, to, channels), found by what each ResBlock of the way up is given more
    than the part before it returned."""
    left = []  # (which, channels) of the way down
    found = []
    for k, (part, kind, taken, made) in enumerate(seen):
        if kind == "ResBlock" and part == "up":
            where, channels = left.pop()
            assert taken[0] == seen[k - 1][3][0] + channels
            found.append((where, k, channels))
        follows = k + 1 < len(seen) and seen[k + 1][1] == "Transformer"
        within = kind == "ResBlock" and follows  # it is the Transformer's result that is kept
        if not within and (part == "down" or (part == "conv" and not left)):
            left.append((k, made[0]))
    return found


def box(ax, x: float, y: float, kind: str, channels: int) -> None:
    """One block: its kind in it, the channels of what it returns under it."""
    style_of = {"boxstyle": "round,pad=0,rounding_size=0.12", "lw": 0.8, "ec": "#555555"}
    ax.add_patch(FancyBboxPatch((x - 0.36, y), 0.72, 1.5, fc=COLOURS[kind], **style_of))
    ax.text(x, y + 0.75, kind, rotation=90, ha="center", va="center", fontsize=9)
    ax.text(x, y - 0.12, channels, ha="center", va="top", fontsize=9, color="#333333")


def draw_network(out: Path) -> None:
    """The default network of the toy set, every shape taken from forward hooks."""
    config = replace(PRESETS["toy"], in_channels=LATENT[0], out_channels=LATENT[0])
    network = UNet(config)
    seen = trace(network)
    sizes = sorted({made[1] for _, _, _, made in seen}, reverse=True)
    row = {size: 2.9 * (len(sizes) - 1 - i) for i, size in enumerate(sizes)}
    made = style.figure(5.6)
    ax = made.add_subplot()
    ax.set_axis_off()
    places = []
    for x, (_, kind, _, shape) in enumerate(seen):
        box(ax, x, row[shape[1]], kind, channels=shape[0])
        places.append((x, row[shape[1]]))
    for (x, y), (x2, y2) in itertools.pairwise(places):
        arrow = {"arrowstyle": "-|>", "lw": 1, "color": "#555555"}
        start = (x + 0.36, y + 0.75) if y == y2 else (x + 0.36, y) if y2 < y else (x + 0.2, y + 1.5)
        end = (x2 - 0.36, y2 + 0.75) if y == y2 else (x2 - 0.2, y2 + 1.5 if y2 < y else y2 - 0.42)
        ax.annotate("", end, start, arrowprops=arrow)
    for k, (start, end, channels) in enumerate(joined(seen)):
        (x, y), (x2, _) = places[start], places[end]
        top = y + 1.75 + 0.3 * (1 - k % 2)
        ax.plot([x, x, x2], [y + 1.5, top, top], color=style.DATA, lw=1.3)
        arrow = {"arrowstyle": "-|>", "lw": 1.3, "color": style.DATA}
        ax.annotate("", (x2, y + 1.5), (x2, top), arrowprops=arrow)
        white = {"fc": "white", "ec": "none", "pad": 0.5}
        words = {"ha": "center", "va": "center", "fontsize": 8.5, "color": style.DATA}
        ax.text((x + x2) / 2, top, f" {channels} ", bbox=white, **words)
    for size, y in row.items():
        ax.text(-0.9, y + 0.75, f"{size}x{size}", ha="right", va="center", fontsize=11)
    width, millions = config.time_width, sum(p.numel() for p in network.parameters()) / 1e6
    told = (
        f"every ResBlock is told the time: t → {config.channels[0]} sines and cosines → {width}\n"
        f"every Transformer reads the words: tokens of {config.token_dim} numbers\n"
        f"{millions:.1f} million parameters"
    )
    middle = (len(seen) - 1) / 2
    ax.text(middle, row[sizes[0]] + 0.75, told, ha="center", va="center", linespacing=1.6)
    ax.set(xlim=(-1.9, len(seen) - 0.3), ylim=(-0.6, row[sizes[0]] + 2.4))
    style.save(made, out, "04_network")


def means(image: torch.Tensor, side: int) -> torch.Tensor:
    """The mean over squares of side x side pixels, at the old size: (c, h, w)."""
    small = F.avg_pool2d(image[None], side)
    return F.interpolate(small, scale_factor=side, mode="nearest")[0]


def draw_levels(out: Path) -> None:
    """The same noisy picture, averaged over larger and larger squares."""
    picture = torch.from_numpy(style.pixels(draw(MONSTER, "stand")).copy()).permute(2, 0, 1)
    x0, schedule = picture * 2 - 1, NoiseSchedule("cosine")
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    rows, names = [], []
    for t in (200, 500, 800):
        level = schedule.level(t)
        x_t = level.alpha * x0 + level.sigma * eps
        rows.append([means(x_t, side) / max(level.alpha, 0.5) for side in (1, 2, 4, 8)])
        names.append(f"t = {t}")
    sides = ["64x64, as it is", *(rf"{64 // k}x{64 // k}, $\sigma$ / {k}" for k in (2, 4, 8))]
    style.save(style.strip(rows, sides, names), out, "04_levels")


def flat(h: torch.Tensor) -> torch.Tensor:
    """The same at every place: the mean over the picture."""
    return h.mean(dim=(2, 3), keepdim=True).expand_as(h)


def without(network: UNet, sizes: set[int], below: bool = False):
    """The network with flat skips of these sizes; below: with nothing but them at the top size."""

    def denoise(x_t, t, condition):
        h, skips, told = network.encode(x_t, t, condition)
        skips = [flat(skip) if skip.shape[-1] in sizes else skip for skip in skips]
        if not below:
            return network.decode(h, skips, told)
        hook = network.up_blocks[-1].register_forward_pre_hook(lambda _, args: (flat(args[0]),))
        predicted = network.decode(h, skips, told)
        hook.remove()
        return predicted

    return denoise


@torch.no_grad()
def draw_skips(run: Path, out: Path) -> None:
    """What a trained network makes of x_t when some of its skips are taken away."""
    model = tinyldm.load(run, device="cpu")
    x0 = model.encode([draw(MONSTER, "stand")])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    condition = model.text_encoder.encode([model.task.prompt(PROMPT)])
    cases = [(set(), False), ({16}, False), ({8, 4}, False), (set(), True)]
    rows, times, kind = [], (150, 350, 550), model.checkpoint.prediction
    for t in times:
        level = model.schedule.level(t)
        x_t = level.alpha * x0 + level.sigma * eps
        row = [model.decode(x_t / math.hypot(level.alpha, level.sigma))[0]]
        for sizes, below in cases:
            predicted = without(model.network, sizes, below)(
                x_t, torch.tensor([float(t)]), condition
            )
            row.append(model.decode(to_x0_eps(predicted, x_t, level, kind)[0])[0])
        rows.append(row)
    labels = [
        "$x_t$",
        "estimate of $x_0$",
        "no skips at 16x16",
        "none at 8x8, 4x4",
        "nothing from below",
    ]
    style.save(style.strip(rows, labels, [f"t = {t}" for t in times]), out, "04_skips")


def draw_time(out: Path) -> None:
    """The features of t, and how alike those of two timesteps are."""
    features = Sinusoidal(96)(torch.arange(1000)).numpy()
    made = style.figure(3.4)
    left, right = made.subplots(1, 2, width_ratios=(1.25, 1))
    left.imshow(features.T, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    left.set(xlabel="t", ylabel="feature", title="48 cosines above, 48 sines below")
    left.grid(False)
    for t, colour in zip((100, 500, 900), (style.DATA, style.MODEL, style.NOISE), strict=True):
        right.plot(np.arange(1000), features @ features[t] / 48, color=colour, label=f"t = {t}")
    right.set(xlabel="s", title="likeness of t and s", ylim=(0, 1.2))
    right.legend(loc="upper center", ncols=3, fontsize=10, handlelength=1.2, columnspacing=1)
    style.save(made, out, "04_time")


def main() -> None:
    options = style.options(__doc__)
    draw_network(options.out)
    draw_levels(options.out)
    draw_time(options.out)
    draw_skips(options.run, options.out)


if __name__ == "__main__":
    main()
