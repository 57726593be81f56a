"""What the playground draws: one prompt and seed in two ways, step by step, with their attention.

Nothing here knows of a page or of gradio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image
from torch import Tensor

from tinyldm.data.images import grid
from tinyldm.diffusion.schedule import Level
from tinyldm.errors import InputError
from tinyldm.installation import called
from tinyldm.methods.attention_maps import Maps, over_the_picture, record_attention
from tinyldm.model import Model, Step, call_options

Places = tuple[str, list[int]]  # a word, and which tokens of the condition are its own
MARKS = "start, end"
WHITE = 3.0  # latents are shown from -3 to 3; x0 and noise are of about unit size


@dataclass(frozen=True)
class Setting:
    """How one side draws; None is the model's own choice."""

    guidance: float | None = None
    solver: str | None = None
    steps: int | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """What both sides draw.

    init:     a picture to draw on, or its file
    strength: 0 to 1, how far it is drawn anew
    """

    prompt: str = ""
    seed: int = 0
    init: Image.Image | str | None = None
    strength: float | None = None


@dataclass(frozen=True, eq=False)
class Word:
    """A word of the prompt, or what else there is to look at.

    share: of all attention, 0 to 1
    heat:  (h, w), how much each position of the latents looks at it
    """

    text: str
    share: float
    heat: Tensor


@dataclass(frozen=True, eq=False)
class Frame:
    """A side after one of its steps.

    level: of x_s, the noisy picture; clean data after the last step
    words: where the step looked at each word; () for a network that reads no tokens
    """

    step: Step
    level: Level
    words: tuple[Word, ...] = ()

    @cached_property
    def pictures(self) -> tuple[Image.Image, Image.Image]:
        """x_s and the estimate of x0, decoded."""
        return self.step.noisy[0], self.step.pictures[0]

    @cached_property
    def latents(self) -> tuple[Image.Image, Image.Image]:
        """x_s and the estimate of x0 as they are, a grey square for each channel."""
        return channels(self.step.x[0]), channels(self.step.x0[0])


def channels(x: Tensor) -> Image.Image:
    """The channels of latents (c, h, w) as grey pictures, black -3 and white 3."""
    grey = ((x.float().cpu() / WHITE + 1) / 2).clamp(0, 1).mul(255).round().byte()
    pictures = [Image.fromarray(each.numpy()).convert("RGB") for each in grey]
    return grid(pictures, columns=math.ceil(math.sqrt(len(pictures))))


@dataclass(eq=False)
class Footage:
    """All frames of both sides, as they come; what the page looks back at."""

    sides: tuple[list[Frame], list[Frame]] = field(default_factory=lambda: ([], []))

    def at(self, fraction: float) -> tuple[Frame | None, Frame | None]:
        """The frame of each side that is so far on the way, 0 the first and 1 the last."""
        return self._of(self.sides[0], fraction), self._of(self.sides[1], fraction)

    def _of(self, frames: Sequence[Frame], fraction: float) -> Frame | None:
        if not frames:
            return None
        return frames[round(min(max(fraction, 0.0), 1.0) * (len(frames) - 1))]

    @property
    def last(self) -> tuple[Frame | None, Frame | None]:
        """The newest frame of each side."""
        return self.at(1)


def check_model(model: Model) -> None:
    """InputError for a model whose prompts are files, which a page cannot ask for."""
    if model.text_encoder.map_size is not None:
        raise InputError(
            f"{model.checkpoint.path}: draws {model.task.name} pictures from image files; "
            "play takes runs whose prompts are captions, labels or classes, or that need none; "
            f"draw with {called('sample.py')} --run {model.checkpoint.path} --prompts FILE"
        )


def own_settings(model: Model) -> tuple[Setting, Setting]:
    """What the page begins with: the model's own way to draw, and one that differs in one thing."""
    settings = model.checkpoint.config["settings"]
    options = call_options().drawing(model.task, settings)
    if settings.get("consistency") is not None:
        first = Setting(options.guidance, "consistency", options.steps)
        return first, Setting(options.guidance, "consistency", 2 * options.steps)
    first = Setting(options.guidance, "dpm++", 20)
    if options.guidance == 1:
        return first, Setting(options.guidance, "dpm++", 5)
    return first, Setting(1.0, "dpm++", 20)


def draw(model: Model, asked: Asked, settings: tuple[Setting, Setting]) -> Iterator[Footage]:
    """What is drawn after each step; of the two sides, the one with more noise goes on.

    InputError, before the first step: something is asked for that the model does not do.
    """
    words = model.text_encoder.words(model.task.prompt(asked.prompt))
    streams = [begin(model, asked, setting) for setting in settings]
    return interleaved(model, streams, words)


def begin(model: Model, asked: Asked, setting: Setting) -> Iterator[Step]:
    """The steps of one side, none of which has been made yet."""
    return model.stream(
        asked.prompt,
        steps=setting.steps,
        guidance=setting.guidance,
        solver=setting.solver,
        seed=asked.seed,
        init=asked.init,
        strength=None if asked.init is None else asked.strength,
    )


def interleaved(
    model: Model, streams: Sequence[Iterator[Step]], words: Sequence[Places]
) -> Iterator[Footage]:
    """See draw(). It is a generator, so that its first step is made when it is asked for."""
    footage = Footage()
    noise = {k: math.inf for k in range(len(streams))}  # t of each side that is not at its end
    while noise:
        k = max(noise, key=lambda side: noise[side])
        with record_attention(model.network) as maps:
            step = next(streams[k], None)
        if step is None:
            del noise[k]
            continue
        level = step.painter.reached[step.index]
        noise[k] = level.t
        footage.sides[k].append(Frame(step, level, tuple(seen(maps, step, words))))
        yield footage


def seen(maps: Maps, step: Step, words: Sequence[Places]) -> Iterator[Word]:
    """Where a step looked at each word, and last at what is no word: the marks of start and end."""
    if not maps or not words:
        return
    heat = over_the_picture(maps, (step.x.shape[-2], step.x.shape[-1]))[0]  # (n, h, w)
    named = {place for _, places in words for place in places}
    if max(named) >= len(heat):
        return  # with guidance 0 the network is told nothing, and reads no word
    rest = [place for place in range(len(heat)) if place not in named]
    for text, places in [*words, *([(MARKS, rest)] if rest else [])]:
        of_word = heat[places].sum(dim=0)
        yield Word(text, of_word.mean().item(), of_word)
