"""Figures of chapter 7: one prompt at several scales, in an interval, and by a weaker network."""

from pathlib import Path

import style
import torch

import tinyldm
from tinyldm import Condition, DPMSolver, Guidance, NoiseSchedule, sample
from tinyldm.training.checkpoint import checkpoints, load_checkpoint

PROMPT = "Pixel art of a red star-shaped monster with ivory horns and one eye."
STEPS = 12
SCALES = (1, 2, 3, 5, 8)
INTERVAL = (0.3, 3.0)  # of sigma / alpha
NARROW = (0.1, 1.0)  # the one on the line

# data on a line, in two classes, of which everything is known
MEANS = torch.tensor([[-1.0, 0.4], [0.9, 1.6]], dtype=torch.float64)  # (class, kind)
STDS = torch.tensor([[0.3, 0.3], [0.3, 0.25]], dtype=torch.float64)
BOTH = "both"


def best_x0(x: torch.Tensor, level, asked: int | str) -> torch.Tensor:
    """E[x0 | x_t, class] for x (n,); "both" is the null condition, without a class."""
    means, stds = (
        (MEANS.flatten(), STDS.flatten()) if asked == BOTH else (MEANS[asked], STDS[asked])
    )
    spread = (level.alpha**2 * stds**2 + level.sigma**2).sqrt()
    away = x[:, None] - level.alpha * means
    fit = -spread.log() - (away / spread) ** 2 / 2
    return (fit.softmax(1) * (means + level.alpha * stds**2 / spread**2 * away)).sum(1)


def density(y: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> torch.Tensor:
    """Of equally frequent kinds of data, at y (n,)."""
    z = (y[:, None] - means) / stds
    return ((-z * z / 2).exp() / stds).mean(1) / (2 * torch.pi) ** 0.5


def draw_line(out: Path) -> None:
    """Where guided samples of the first class end, on a line."""
    schedule = NoiseSchedule()
    grid = schedule.grid(200)
    level_of = {torch.tensor(level.t).item(): level for level in grid}

    def denoise(x, t, condition):
        """Rows of vector 0 are of the first class, those of vector -1 of both."""
        level = level_of[t[0].item()]
        told = [0 if v == 0 else BOTH for v in condition.vector[:, 0].tolist()]
        return torch.stack([best_x0(row, level, c) for row, c in zip(x, told, strict=True)])

    null = Condition(vector=torch.tensor([[-1.0]]))
    asked = Condition(vector=torch.zeros(1, 1))
    start = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)[None]
    made = style.figure(3.4)
    axes = made.subplots(1, 4, sharey=True)
    y = torch.linspace(-2.4, 2.6, 401, dtype=torch.float64)
    cases = [(1.0, None), (2.0, None), (4.0, None), (4.0, NARROW)]
    for ax, (scale, interval) in zip(axes, cases, strict=True):
        guidance = Guidance(scale, null, interval=interval, schedule=schedule if interval else None)
        how = {"condition": asked, "guidance": guidance, "noise": start, "dtype": torch.float64}
        x = sample(denoise, (1, 4000), schedule, DPMSolver(2), steps=200, prediction="x0", **how)
        ax.hist(
            x[0].numpy(), bins=100, range=(-2.4, 2.6), density=True, color=style.MODEL, alpha=0.6
        )
        for k, colour in ((0, style.DATA), (1, style.NOISE)):
            ax.plot(y, density(y, MEANS[k], STDS[k]), color=colour, lw=1.5)
        title = f"w = {scale:g}" + (", in an interval" if interval else "")
        ax.set(title=title, ylim=(0, 2.5), yticks=[])
    style.save(made, out, "07_line")


def earlier(run: Path) -> Path:
    """The checkpoint of a run that is nearest to a quarter of its steps."""
    found = checkpoints(run)
    last = int(found[-1].name.split("-")[1])
    return min(found, key=lambda path: abs(int(path.name.split("-")[1]) - last / 4))


@torch.no_grad()
def draw_scales(model: tinyldm.Model, run: Path, out: Path) -> None:
    """One prompt and one noise: guidance, guidance in an interval, autoguidance."""
    condition = model.text_encoder.encode([PROMPT])
    shape = (1, *model.checkpoint.config["latent_shape"])
    null, schedule = model.checkpoint.null, model.schedule
    weak = load_checkpoint(earlier(run), model.device).network

    def picture(guidance):
        how = {"condition": condition, "seeds": [2], "guidance": guidance}
        how["prediction"] = model.checkpoint.prediction
        return model.decode(
            sample(model.network, shape, schedule, DPMSolver(), steps=STEPS, **how)
        )[0]

    plain = picture(None)
    rows = [
        [plain, *(picture(Guidance(w, null)) for w in SCALES[1:])],
        [plain, *(picture(Guidance(w, null, 0, INTERVAL, schedule=schedule)) for w in SCALES[1:])],
        [plain, *(picture(Guidance(1, null, guide=weak, guide_scale=w)) for w in SCALES[1:])],
    ]
    names = ["guidance", "in an interval", "autoguidance"]
    style.save(style.strip(rows, [f"w = {w}" for w in SCALES], names), out, "07_scales")


def main() -> None:
    options = style.options(__doc__)
    draw_line(options.out)
    model = tinyldm.load(options.run, device="cpu")
    draw_scales(model, options.run, options.out)


if __name__ == "__main__":
    main()
