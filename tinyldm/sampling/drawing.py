"""From prompts to pictures: conditions, latents, images. Previews use the same functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import scandir
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.condition import Condition
from tinyldm.data.examples import Prompt, Request
from tinyldm.data.images import grid, save_image, to_pil
from tinyldm.device import runs_bfloat16
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.sampler import Denoiser, sample
from tinyldm.diffusion.schedule import Grid, Level, NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.methods.autoguidance import predicting
from tinyldm.methods.composition import Composed
from tinyldm.methods.editing import Callback, Inpainting, begin, invert, passages, resample
from tinyldm.processes import ALONE, Processes
from tinyldm.sampling.compositions import Composition, parts_of, regrouped
from tinyldm.sampling.settings import Drawing
from tinyldm.tasks.base import Encoder, Task
from tinyldm.training.checkpoint import Checkpoint

CPU = torch.device("cpu")

LABELLED = 48
"""Pictures of this width or more have room for "t = 999" above them."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture to draw on.

    x0:       its normalised latents, (1, c, h, w)
    strength: 0 to 1, how far it is drawn anew; see methods/editing.py
    clip:     what of it stays, if something does
    kept:     the picture itself, and its mask, white where it is drawn, if something stays
    times:    how many times each step is taken, to fit what stays
    """

    x0: Tensor
    strength: float
    clip: Inpainting | None = None
    kept: tuple[Image.Image, Image.Image] | None = None
    times: int = 1

    def finish(self, drawn: Image.Image) -> Image.Image:
        """What was drawn, with the known pixels as they were."""
        if self.kept is None:
            return drawn
        picture, mask = self.kept
        return Image.composite(drawn, picture, mask)


@dataclass(frozen=True, eq=False)
class Painter:
    """Draws pictures of conditions with one network, in one way.

    network:      a denoiser, in eval mode, on the device
    prediction:   what it predicts: eps, x0, v or flow
    latent_shape: (c, h, w)
    mean, std:    latents of the VAE are x0 * std + mean; (c, 1, 1), mean maybe (c, h, w)
    vae:          decode(latents (b, c, h, w)) gives images (b, 3, h', w') in [-1, 1]
    how:          steps, solver, grid and precision
    guidance:     makes a guided denoiser of the network; None leaves it as it is
    null:         the null condition, which a composition of prompts is compared with
    canvas:       the picture to draw on; None: from noise alone
    starts:       (n, c, h, w), the noise that the n pictures of a job start from, in place of that
                  of their seeds
    bfloat16:     whether the network runs in bfloat16: what how.precision means on the device
    grid, init:   the levels that a drawing visits, and the latents that it begins with, if any
    """

    network: Denoiser
    schedule: NoiseSchedule
    prediction: str
    latent_shape: tuple[int, ...]
    mean: Tensor
    std: Tensor
    vae: Any
    how: Drawing
    guidance: Callable[[Denoiser], Denoiser] | None = None
    null: Condition = field(default_factory=Condition)
    canvas: Canvas | None = None
    starts: Tensor | None = None
    device: torch.device = CPU
    bfloat16: bool = field(init=False)
    grid: Grid = field(init=False)
    init: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        grid, init = self.how.grid(self.schedule), None
        if self.canvas is not None:
            grid, init = begin(self.canvas.x0, grid, self.canvas.strength)
        object.__setattr__(self, "bfloat16", runs_bfloat16(self.device, self.how.precision))
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "init", init)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        vae: Any,
        task: Task,
        how: Drawing,
        *,
        device: torch.device,
        guide: Checkpoint | None = None,
    ) -> Painter:
        """The painter of a checkpoint, with the guidance that `how` asks its task for.

        guide: what `how` names as the guide
        """
        guidance = task.guidance(how, checkpoint.null, checkpoint.schedule)
        if guide is not None:
            if not isinstance(guidance, Guidance):
                raise InputError("--guide: can't be combined with the guidance of this task")
            assert how.guide_scale is not None
            weak = predicting(
                guide.network, guide.prediction, checkpoint.prediction, checkpoint.schedule
            )
            guidance = replace(guidance, guide=weak, guide_scale=how.guide_scale)
        return cls(
            network=checkpoint.network,
            schedule=checkpoint.schedule,
            prediction=checkpoint.prediction,
            latent_shape=tuple(checkpoint.config["latent_shape"]),
            mean=checkpoint.mean,
            std=checkpoint.std,
            vae=vae,
            how=how,
            guidance=guidance,
            null=checkpoint.null,
            device=device,
        )

    @property
    def times(self) -> int:
        """How many times each step is taken."""
        return 1 if self.canvas is None else self.canvas.times

    @property
    def steps(self) -> int:
        """How many steps a drawing takes."""
        return len(self.reached)

    @property
    def reached(self) -> list[Level]:
        """The level that each step leads to; the last is that of clean data."""
        if self.times == 1:
            return list(self.grid[1:])
        return [level for part in passages(self.grid, self.times) for level in part[1:]]

    @torch.inference_mode()
    def invert(self, condition: Condition) -> Tensor:
        """The noise (1, c, h, w) from which the canvas would be drawn, given what it shows.

        Drawn with the same condition, and without guidance. It is that of the grid's first level.
        """
        assert self.canvas is not None
        asked = condition if condition.parts() else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return invert(
                self.network,
                self.canvas.x0,
                self.schedule,
                self.grid,
                solver=self.how.solver,
                condition=asked,
                prediction=self.prediction,
            )

    @torch.inference_mode()
    def draw(
        self,
        condition: Condition | Composed | None,
        seeds: Sequence[int],
        callback: Callback | None = None,
        noise: Tensor | None = None,
    ) -> list[Image.Image]:
        """Pictures of the b rows of a condition; picture k depends on seeds[k] alone.

        callback(step, x, x0) after every step, in units of x0
        noise:   (b, c, h, w) to start from, in place of that of the seeds
        """
        guidance = self.guidance
        if isinstance(condition, Composed):
            plain = Guidance(self.how.guidance, self.null)
            how = guidance if isinstance(guidance, Guidance) else plain
            guidance = condition.guidance(how, self.device)
            condition = condition.parts[0]
        elif condition is not None and not condition.parts():
            condition = None  # nothing is asked for, and so it has no rows
        draw = sample if self.times == 1 else partial(resample, times=self.times)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            x0 = draw(
                self.network,
                (len(seeds), *self.latent_shape),
                self.schedule,
                solver=self.how.solver,
                condition=condition,
                prediction=self.prediction,
                seeds=seeds,
                guidance=guidance,
                spacing=self.grid,
                clip=self.canvas.clip if self.canvas else None,
                device=self.device,
                noise=noise,
                init=self.init,
                callback=callback,
            )
        pictures = self.decode(x0)
        return [self.canvas.finish(each) for each in pictures] if self.canvas else pictures

    @torch.inference_mode()
    def decode(self, x0: Tensor, chunk: int = 8) -> list[Image.Image]:
        """Pictures of normalised latents x0 (b, c, h, w), a chunk at a time.

        The VAE runs in float32 unless bfloat16 is asked for.
        """
        latents = x0.float() * self.std.to(x0.device) + self.mean.to(x0.device)
        asked = self.how.precision == "bfloat16"
        pictures = []
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=asked):
            for part in latents.split(chunk):
                images = self.vae.decode(part)
                if not bool(images.isfinite().all()):
                    raise InputError(
                        f"the pictures are not finite numbers with guidance {self.how.guidance:g} "
                        f"in {self.how.steps} steps; expected another --guidance or --precision"
                    )
                pictures += [to_pil(image) for image in images]
        return pictures


def picture_seed(seed: int, index: int) -> int:
    """The seed of picture `index` of a list, for diffusion.sampler.sample.

    32 bits, all that a CPU generator of torch looks at. The formula is part of what users rely on:
    a checkpoint, a prompt and a seed give the same picture in every version.
    """
    return (seed * 1_000_003 + index) % 2**32


def encode_prompts(encoder: Encoder, prompts: Sequence[Prompt]) -> Condition:
    """The prompts as rows of one condition, on the CPU; each distinct prompt is encoded once."""
    chunk = 64
    distinct = list(dict.fromkeys(prompts))
    starts = range(0, len(distinct), chunk)
    rows = []
    for start in tqdm(starts, "encoding prompts", unit="batch", disable=len(distinct) <= chunk):
        rows.append(encoder.encode(distinct[start : start + chunk]).to("cpu"))
    place = {prompt: row for row, prompt in enumerate(distinct)}
    return Condition.cat(rows)[torch.tensor([place[prompt] for prompt in prompts])]


def encode_asked(encoder: Encoder, prompts: Sequence[Prompt]) -> Condition | Composed:
    """As encode_prompts, for prompts that may be compositions, of equally many parts each."""
    compositions = [prompt for prompt in prompts if isinstance(prompt, Composition)]
    if not compositions:
        return encode_prompts(encoder, prompts)
    return regrouped(encode_prompts(encoder, parts_of(compositions)), compositions)


def draw_requests(
    painter: Painter,
    encoder: Encoder,
    requests: Sequence[Request],
    out: Path,
    seed: int = 0,
    batch_size: int = 32,
    processes: Processes = ALONE,
) -> None:
    """Draw the requests into a folder, under their names. Pictures already there are kept.

    The batches are dealt out to the processes. Which pictures are drawn together depends neither on
    how many processes there are nor on what is there already: in another batch, the last bit of a
    colour may be another.
    """
    batches = torch.arange(len(requests)).split(batch_size)
    steps = painter.steps
    done = len(requests) - len(missing(requests, out))
    quiet = processes.rank != 0 or done == len(requests)
    shown = {"desc": "sampling", "unit": "image", "disable": quiet}
    with tqdm(total=len(requests), initial=done, **shown) as bar:
        for batch in batches[processes.rank :: processes.world]:
            rows = batch.tolist()
            absent = missing(requests, out)  # the other processes draw as well
            todo = {requests[k].name for k in rows}.intersection(absent)
            if not todo:
                continue
            condition = encode_asked(encoder, [requests[k].prompt for k in rows])
            seeds = [picture_seed(seed, k) for k in rows]
            watch = progress(bar, len(requests) - len(absent), len(todo), steps)
            noise = None if painter.starts is None else painter.starts[batch]
            pictures = painter.draw(condition, seeds, watch, noise=noise)
            for k, picture in zip(rows, pictures, strict=True):
                if requests[k].name in todo:
                    save_image(picture, out / requests[k].name, signed=True)
        processes.barrier()
        bar.update(len(requests) - bar.n)


def missing(requests: Sequence[Request], folder: Path) -> list[str]:
    """The names of the pictures that are not in a folder yet."""
    there = {entry.name for entry in scandir(folder)}
    return [request.name for request in requests if request.name not in there]


def progress(bar: Any, before: int, count: int, steps: int) -> Callback:
    """A callback that moves a bar of images while a batch of `count` of them is drawn.

    before: how many images the bar had when the batch began
    """

    def advance(step: int, x: Tensor, x0: Tensor) -> None:
        done = before + count * (step + 1) // steps
        bar.update(done - bar.n)
        bar.refresh()

    return advance


def time_of(level: Level) -> str:
    """A label for x_t at a level."""
    return "the end" if level.sigma == 0 else f"t = {level.t:.0f}"


def draw_strip(
    painter: Painter, condition: Condition | Composed, seed: int
) -> tuple[Image.Image, list[Image.Image]]:
    """How one picture is drawn, from noise to the end: a strip, and the frames of a film.

    x_t is above, the estimate of x0 that led to it below. It starts as the first picture of the job
    does. Where pictures are wide enough for words, each says its t.
    """
    steps = painter.steps
    frames = min(10, steps)
    shown = {round(k * (steps - 1) / max(frames - 1, 1)) for k in range(frames)}
    states, estimates = [], []
    with tqdm(desc="drawing the strip", unit="step", total=steps) as bar:

        def keep(step: int, x: Tensor, x0: Tensor) -> None:
            bar.update()
            if step in shown:
                states.append(x)
                estimates.append(x0)

        noise = None if painter.starts is None else painter.starts[:1]
        painter.draw(condition, [seed], keep, noise=noise)
    above = painter.decode(torch.cat(states))
    below = painter.decode(torch.cat(estimates))
    words: list[str] = []
    if above[0].width >= LABELLED:
        words = [time_of(painter.reached[step]) for step in sorted(shown)] + ["x0"] * len(below)
    strip = grid(above + below, columns=len(above), words=words)
    film = [grid(list(pair), columns=1) for pair in zip(above, below, strict=True)]
    return strip, film
