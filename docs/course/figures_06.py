"""Figures of chapter 6: paths of a flow, one seed under five solvers, error against calls."""

from pathlib import Path

import numpy as np
import style
import torch
from matplotlib.ticker import NullFormatter, NullLocator

import tinyldm
from tinyldm import DDIM, DDPM, DPMSolver, NoiseSchedule, sample
from tinyldm.diffusion.schedule import Grid, Level
from tinyldm.diffusion.unipc import UniPC

PROMPT = "Purple mushroom-like monster with a golden crown and two eyes. The monster is attacking."
VAGUE = "Cartoon monster with horns."  # leaves much open, so that solvers can differ
SOLVERS = {
    "DDPM": DDPM(),
    "DDIM": DDIM(),
    "DPM-Solver": DPMSolver(2, form="eps"),
    "DPM-Solver++": DPMSolver(2),
    "UniPC": UniPC(2),
}
COLOURS = {
    "DDIM": style.NOISE,
    "DPM-Solver": style.MORE[3],
    "DPM-Solver++": style.DATA,
    "UniPC": style.MORE[0],
}
REFERENCE = 1000  # steps
LAST = "the last guess alone"

# two kinds of data on a line, of which everything is known
MEANS = torch.tensor([-1.0, 0.8], dtype=torch.float64)
STDS = torch.tensor([0.15, 0.25], dtype=torch.float64)
WEIGHTS = torch.tensor([0.4, 0.6], dtype=torch.float64)


def parts(level: Level) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the standard deviation of x_t for each kind of data: (2,) each."""
    return level.alpha * MEANS, (level.alpha**2 * STDS**2 + level.sigma**2).sqrt()


def best_x0(x: torch.Tensor, level: Level) -> torch.Tensor:
    """E[x0 | x_t] for x (n, 1): the answer of each kind, as probable as it explains x_t."""
    mean, std = parts(level)
    fit = WEIGHTS.log() - std.log() - ((x - mean) / std) ** 2 / 2
    return (fit.softmax(1) * (MEANS + level.alpha * STDS**2 / std**2 * (x - mean))).sum(
        1, keepdim=True
    )


def below(x: torch.Tensor, level: Level) -> torch.Tensor:
    """The share of x_t that lies below x (n, 1)."""
    mean, std = parts(level)
    return (torch.special.ndtr((x - mean) / std) * WEIGHTS).sum(1, keepdim=True)


def quantiles(shares: torch.Tensor, level: Level) -> torch.Tensor:
    """x (n, 1) with these shares (n, 1) of x_t below it, by halving an interval."""
    low, high = torch.full_like(shares, -9), torch.full_like(shares, 9)
    for _ in range(80):
        middle = (low + high) / 2
        less = below(middle, level) < shares
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return middle


def denoiser(grid: Grid):
    """The best denoiser of the data on a line, as sample() calls it."""
    level_of = {torch.tensor(level.t).item(): level for level in grid}
    return lambda x, t, condition: best_x0(x, level_of[t[0].item()])


def walk(solver, grid: Grid, x: torch.Tensor, seed: int = 0) -> list[torch.Tensor]:
    """x (n, 1) at every level of the grid."""
    seen = [x]
    sample(
        denoiser(grid),
        x.shape,
        NoiseSchedule(),
        solver,
        prediction="x0",
        spacing=grid,
        noise=x,
        seeds=range(seed, seed + len(x)),
        dtype=x.dtype,
        callback=lambda _, x_s, __: seen.append(x_s),
    )
    return seen


def draw_paths(out: Path) -> None:
    """From noise to data on a line: the flow, DDPM's walk, and five steps of DDIM."""
    schedule = NoiseSchedule()
    fine, few = schedule.grid(1000), schedule.grid(5)
    made = style.figure(4.0)
    axes = made.subplots(1, 3, sharey=True)
    shares = torch.linspace(0.04, 0.96, 16, dtype=torch.float64)[:, None]
    exact = torch.stack([quantiles(shares, level) for level in fine[::10]])[..., 0]
    start = quantiles(shares, fine[0])
    noisy = torch.stack(walk(DDPM(), fine, start))[..., 0]
    steps = torch.stack(walk(DDIM(), few, start))[..., 0]
    y = torch.linspace(-2.6, 2.6, 261, dtype=torch.float64)[:, None]
    density = []
    for level in fine[::10]:
        mean, std = parts(level)
        density.append((WEIGHTS * (-(((y - mean) / std) ** 2) / 2).exp() / std).sum(1))
    shown = torch.stack(density, 1)
    shown = shown / shown.amax(0)
    place = {"extent": (999, 0, -2.6, 2.6)}
    for ax, title in zip(
        axes, ("the flow, exactly", "DDPM, 1000 steps", "DDIM, 5 steps"), strict=True
    ):
        ax.imshow(shown.numpy(), **place, origin="lower", aspect="auto", cmap="Greys", vmax=2.2)
        ax.grid(False)
        ax.set(title=title, xlabel="t", xlim=(1010, -10), ylim=(-2.6, 2.6))
    t = [level.t for level in fine]
    axes[0].plot(t[::10], exact.numpy(), color=style.DATA, lw=1.1)
    axes[1].plot(t, noisy.numpy(), color=style.NOISE, lw=0.5)
    axes[2].plot(t[::10], exact.numpy(), color=style.DATA, lw=0.8, alpha=0.5)
    axes[2].plot(
        [level.t for level in few], steps.numpy(), color=style.MODEL, lw=1.2, marker="o", ms=3
    )
    axes[0].set_ylabel("x")
    style.save(made, out, "06_paths")


def line_errors(calls: list[int]) -> dict[str, list[float]]:
    """How far each solver ends from where the flow leads, on steps of equal length in lambda."""
    first, last = -4.0, 4.0
    shares = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)[:, None]
    found: dict[str, list[float]] = {name: [] for name in COLOURS}
    for n in calls:
        lambdas = np.linspace(first, last, n + 1)
        grid = tuple(Level.of_sigma(float(n - i), float(np.exp(-v))) for i, v in enumerate(lambdas))
        start, end = quantiles(shares, grid[0]), quantiles(shares, grid[-1])
        for name in found:
            x = walk(SOLVERS[name], grid, start)[-1]
            found[name].append((x - end).square().mean().sqrt().item())
    return found


@torch.no_grad()
def run_errors(model: tinyldm.Model, calls: list[int]) -> dict[str, list[float]]:
    """How far each solver's latents are from those of 1,000 steps, from the same noise; and how far
    the last guess is that n steps make, where it is made on the path of the 1,000."""
    condition = model.text_encoder.encode([PROMPT])
    shape = (1, *model.checkpoint.config["latent_shape"])
    guesses = {}

    def drawn(solver, steps, callback=None):
        how = {"condition": condition, "seeds": [0], "callback": callback}
        how["prediction"] = model.checkpoint.prediction
        return sample(model.network, shape, model.schedule, solver, steps=steps, **how)

    def keep(index, x_s, x0):
        guesses[REFERENCE - 1 - index] = x0  # by t

    reference = drawn(DPMSolver(2), REFERENCE, keep)

    def error(x0):
        return (x0 - reference).square().mean().sqrt().item()

    found = {name: [error(drawn(SOLVERS[name], n)) for n in calls] for name in COLOURS}
    found[LAST] = [error(guesses[round(model.schedule.grid(n)[-2].t)]) for n in calls]
    return found


def draw_error(model: tinyldm.Model, out: Path) -> None:
    """Error against calls, where the truth is a formula and where it is a run of 1,000 steps."""
    made = style.figure(4.4)
    left, right = made.subplots(1, 2)
    calls = [5, 7, 10, 14, 20, 28, 40, 80, 160]
    for ax, errors, title in (
        (left, line_errors(calls), "data on a line: the exact flow is known"),
        (right, run_errors(model, calls[:7]), f"the toy run, against {REFERENCE:,} steps"),
    ):
        for name, values in errors.items():
            if name == LAST:
                ax.loglog(calls[: len(values)], values, color=style.TRUTH, ls=":", label=name)
                ax.legend(ax.lines[-1:], [LAST], fontsize=10)
            else:
                shown = {"color": COLOURS[name], "marker": "o", "ms": 4}
                ax.loglog(calls[: len(values)], values, label=name, **shown)
            print(f"{title}: {name:13}", *(f"{value:.2g}" for value in values))
        ticks = calls[: len(values)][::2] if len(values) < 9 else [5, 10, 20, 40, 80, 160]
        ax.set_xticks(ticks, ticks)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set(title=title, xlabel="calls of the network")
    right.set_yticks([0.01, 0.02, 0.05, 0.1], ["0.01", "0.02", "0.05", "0.1"])
    left.set_ylabel("error")
    left.legend(fontsize=10)
    style.save(made, out, "06_error")


@torch.no_grad()
def draw_solvers(model: tinyldm.Model, out: Path) -> None:
    """One prompt from one noise under five solvers, in a few numbers of steps."""
    condition = model.text_encoder.encode([VAGUE])
    shape = (1, *model.checkpoint.config["latent_shape"])
    how = {"condition": condition, "seeds": [12], "prediction": model.checkpoint.prediction}
    counts = (1, 2, 3, 5, 10, 20)
    rows = []
    for solver in SOLVERS.values():
        row = [sample(model.network, shape, model.schedule, solver, steps=n, **how) for n in counts]
        rows.append(model.decode(torch.cat(row)))
    labels = ["1 step", *(f"{n} steps" for n in counts[1:])]
    style.save(style.strip(rows, labels, list(SOLVERS), size=1.25), out, "06_solvers")


def main() -> None:
    options = style.options(__doc__)
    draw_paths(options.out)
    model = tinyldm.load(options.run, device="cpu")
    draw_solvers(model, options.out)
    draw_error(model, options.out)


if __name__ == "__main__":
    main()
