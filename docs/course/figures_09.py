"""The figures of chapter 9: the loss by noise level, a first test, and mistakes switched on.

python docs/course/figures_09.py --run runs/toy-1
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from style import DATA, MODEL, MORE, NOISE, TRUTH, figure, options, save, show
from torch import Tensor, nn

import tinyldm
from tinyldm import DDIM, Condition, DPMSolver, Guidance, NoiseSchedule, UNet, UNetConfig
from tinyldm.diffusion.loss import training_loss
from tinyldm.diffusion.sampler import Denoiser, sample
from tinyldm.methods.autoguidance import predicting
from tinyldm.toy.monsters import ACTIONS, draw, monsters
from tinyldm.toy.monsters import describe as caption_of
from tinyldm.training.checkpoint import checkpoints, load_checkpoint

PROMPTS = (
    "Green ghost-like monster with two eyes and horns. The monster is standing.",
    "Red star-shaped monster with one eye and a golden crown. The monster is jumping.",
    "Blue square monster with three eyes and wings.",
    "Yellow mushroom-like monster with two eyes and a tail. The monster is attacking.",
)
STEPS, SCALE = 20, 3.0
TIMES = (0, 4, 12, 30, 80, 160, 280, 400, 520, 640, 760, 860, 940, 985)
PICTURES = 24


# ---- loss by noise level


def unseen(model: tinyldm.Model) -> tuple[Tensor, Condition]:
    """Latents and conditions of monsters that no training caption describes."""
    r = Random(0)
    _, held_out = monsters()
    pictures, captions = [], []
    for monster in r.sample(held_out, PICTURES):
        action = r.choice(tuple(ACTIONS))
        pictures.append(draw(monster, action, r, model.size[0]))
        captions.append(f"{caption_of(monster, r)} {ACTIONS[action]}".strip())
    return model.encode(pictures), model.text_encoder.encode(captions)


@torch.no_grad()
def losses(network: Denoiser, x0: Tensor, condition: Condition, schedule) -> list[float]:
    """The mean square error of v at each of TIMES, with the same noise for every network.

    It is divided by alpha^2 + sigma^2. So on every path, 1 is what is known of data by its size.
    """
    found = []
    for t in TIMES:
        level = schedule.level(t)
        generator = torch.Generator().manual_seed(t)
        times = torch.full((len(x0),), t)
        with torch.autocast("cpu", torch.bfloat16):
            loss = training_loss(
                network, x0, condition, schedule, prediction="v", generator=generator, t=times
            )
        found.append(loss.mean().item() / (level.alpha**2 + level.sigma**2))
    return found


def loss_by_noise(model: tinyldm.Model, run: Path, out: Path) -> None:
    """The loss of a run at three of its checkpoints, over the level of noise."""
    x0, condition = unseen(model)
    schedule, folders = model.schedule, [folder for _, folder in sorted(steps_of(run))]
    chosen = sorted({0, len(folders) // 3, len(folders) - 1})
    noise = [-schedule.level(t).lambda_ for t in TIMES]
    made = figure(4.2, 9)
    ax = made.subplots()
    ax.axhline(1, color=TRUTH, linestyle=":")
    known = {"color": TRUTH, "ha": "right"}
    ax.text(noise[-1], 1.015, "knows nothing but the size of the data", **known)
    highest = 0.0
    for colour, place in zip((MORE[1], NOISE, MODEL), chosen, strict=False):
        then = load_checkpoint(folders[place], torch.device("cpu"))
        network = predicting(then.network, then.prediction, "v", schedule)
        step = int(folders[place].name.removeprefix("step-"))
        values = losses(network, x0, condition, schedule)
        ax.plot(noise, values, "o-", color=colour, label=f"after {step:,} steps")
        print(f"after {step} steps:", *(f"{value:.2f}" for value in values))
        highest = max(highest, *values)
    ax.set(xlabel=r"noise: $\log(\sigma / \alpha)$", ylabel="mean square error of v")
    ax.set_ylim(0, max(1.12, 1.05 * highest))
    ax.legend(loc="upper center", bbox_to_anchor=(0.6, 0.65))
    save(made, out, "09_loss_by_noise")


def steps_of(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of each checkpoint."""
    return [(int(folder.name.removeprefix("step-")), folder) for folder in checkpoints(run)]


# ---- a first test, and learning rates

SMALL = UNetConfig(
    in_channels=1,
    out_channels=1,
    channels=(24, 48),
    attention="none",
    middle="none",
    blocks=1,
    groups=8,
)


def train(lr: float, steps: int, *, fixed: bool, fault: bool = False, warmup: int = 0):
    """The loss at each step of a small network on squares in corners.

    fixed: the same batch, times and noise in every step; fault: the noise of the target is not
    that of x_t
    """
    torch.manual_seed(0)
    corners = torch.kron(torch.eye(4).view(4, 1, 2, 2), torch.ones(1, 1, 4, 4)) * 2 - 1
    unet, schedule = UNet(SMALL), NoiseSchedule("cosine")
    optimizer = torch.optim.AdamW(unet.parameters(), lr)
    generator, other = torch.Generator(), torch.Generator().manual_seed(9)
    found = []
    for step in range(steps):
        generator.manual_seed(0 if fixed else step)
        x0 = corners[torch.randint(4, (16,), generator=generator)]
        t = torch.randint(1000, (16,), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        level = schedule.level(t).like(x0)
        x_t = level.alpha * x0 + level.sigma * eps
        if fault:
            eps = torch.randn(x0.shape, generator=other)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / (warmup + 1))
        loss = (unet(x_t, t.float()) - (level.alpha * eps - level.sigma * x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def first_test(out: Path) -> None:
    """One batch, learned by heart or not; and the same training at several learning rates."""
    made = figure(4, 10)
    left, right = made.subplots(1, 2)
    left.plot(train(3e-3, 150, fixed=True), color=DATA, label="as it should be")
    fault = train(3e-3, 150, fixed=True, fault=True)
    left.plot(fault, color=NOISE, label="target with other noise than $x_t$")
    left.set(yscale="log", title="one batch, over and over", xlabel="step", ylabel="loss")
    left.legend()
    for colour, lr, warmup in ((MORE[3], 3e-5, 0), (DATA, 3e-3, 0), (NOISE, 0.1, 0)):
        smooth = torch.tensor(train(lr, 150, fixed=False, warmup=warmup))
        smooth = smooth.unfold(0, 10, 1).mean(1).clamp(max=30)
        right.plot(range(9, 150), smooth, color=colour, label=f"learning rate {lr:f}".rstrip("0"))
    right.set(yscale="log", title="fresh batches (mean of ten)", xlabel="step")
    right.legend()
    save(made, out, "09_first_test")


# ---- mistakes


class OffByOne(DDIM):
    """DDIM with the noise of the level that it comes from, not of the one that it goes to."""

    def step(self, x, x0, eps, now, nxt, history=(), noise=None):
        return nxt.alpha * x0 + now.sigma * eps, ()


def without_warmup(network: nn.Module, left: float) -> nn.Module:
    """The network, with this share of a random start still in its weights."""
    torch.manual_seed(0)
    start = deepcopy(network)
    for module in start.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm)):
            module.reset_parameters()
    with torch.no_grad():
        for random, learned in zip(start.parameters(), network.parameters(), strict=True):
            random.lerp_(learned, 1 - left)
    return start


def mistakes(model: tinyldm.Model) -> dict[str, list[Tensor]]:
    """Title -> the pictures of PROMPTS that are drawn with that mistake."""
    checkpoint, net, schedule = model.checkpoint, model.network, model.schedule
    kind = checkpoint.prediction
    others = [other for other in ("eps", "v", "flow") if other != kind]
    wrong = others[-1 if schedule.ends_in_noise else 0]  # eps says nothing of pure noise
    condition = model.text_encoder.encode(list(PROMPTS))
    null = checkpoint.null
    assert null.tokens is not None
    shape = (len(PROMPTS), *checkpoint.config["latent_shape"])

    @torch.no_grad()
    def drawn(network=net, schedule=schedule, null=null, prediction=kind, solver=None, clip=None):
        with torch.autocast("cpu", torch.bfloat16):
            return sample(
                network,
                shape,
                schedule,
                DPMSolver() if solver is None else solver,
                steps=STEPS,
                condition=condition,
                prediction=prediction,
                seeds=range(len(PROMPTS)),
                guidance=Guidance(SCALE, null),
                clip=clip,
            )

    @torch.no_grad()
    def decoded(x0, mean=checkpoint.mean, std=checkpoint.std):
        return list(model.vae.decode(x0 * std + mean))

    right = drawn()
    zeros = replace(null, tokens=torch.zeros_like(null.tokens))
    old = 0.9999 ** checkpoint.config["ema_updates"]
    return {
        "as it should be": decoded(right),
        "latents scaled by 0.18215": decoded(right, 0, 1 / 0.18215),
        f"{kind} taken for {wrong}": decoded(drawn(prediction=wrong)),
        "t in [0, 1]": decoded(drawn(lambda x, t, c: net(x, t / 1000, c))),
        f"average: {old:.0%} random start": decoded(drawn(without_warmup(net, old))),
        "latents clipped to [-1, 1]": decoded(drawn(clip=1.0)),
        r"$\sigma$ of t in place of s": decoded(drawn(solver=OffByOne())),
        "shift 2 in place of 1/2": decoded(drawn(schedule=replace(schedule, shift=2.0))),
        "zeros as the null condition": decoded(drawn(null=zeros)),
    }


def pitfalls(model: tinyldm.Model, out: Path) -> None:
    """A panel of four pictures for each mistake."""
    made = figure(6.2, 5.8)
    for panel, (title, pictures) in zip(
        made.subfigures(3, 3).flat, mistakes(model).items(), strict=True
    ):
        panel.suptitle(title, fontsize=10)
        for ax, picture in zip(panel.subplots(2, 2).flat, pictures, strict=True):
            show(ax, picture)
    save(made, out, "09_pitfalls")


if __name__ == "__main__":
    given = options(__doc__)
    trained = tinyldm.load(given.run, device="cpu")
    first_test(given.out)
    loss_by_noise(trained, given.run, given.out)
    pitfalls(trained, given.out)
