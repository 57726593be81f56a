"""What the page shows of a frame: a card of HTML, with its pictures inside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from tinyldm.playground.drawing import Frame, Word

HERE = Path(__file__).parent / "templates"
SMALL = 128  # pixels a side up to which a picture is sent without loss
COLOURS = ((18, 14, 46), (110, 32, 110), (216, 72, 74), (250, 168, 60), (252, 250, 180))
BRIGHTEST = 2.5  # times the average of a word, from which on a place is brightest
GLOW = 0.72  # how much of a tile is the colour of the attention; the rest is the picture, in grey


@dataclass(frozen=True)
class Tile:
    """A word, its share in percent, and the picture with the attention to it, as a data URL."""

    text: str
    share: str
    source: str


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("tinyldm.playground"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style() -> str:
    """The style sheet of the page."""
    return (HERE / "play.css").read_text(encoding="utf-8")


def card(name: str, frame: Frame | None, latents: bool = False) -> str:
    """The card of a side: x_t and the estimate of x0, where it is, the attention of each word.

    frame:   None before anything is drawn
    latents: show the channels of the latents in place of what they are decoded to
    """
    values = {} if frame is None else of_frame(frame, latents)
    return _environment().get_template("card.html").render(name=name, frame=frame, **values)


def of_frame(frame: Frame, latents: bool) -> dict[str, object]:
    """What the template is told of a frame."""
    noisy, estimate = frame.latents if latents else frame.pictures
    timesteps = frame.step.painter.schedule.timesteps
    ticks = [100 * (1 - (level.t + 1) / timesteps) for level in frame.step.painter.reached]
    picture = frame.pictures[1]
    return {
        "noisy": data_url(noisy),
        "estimate": data_url(estimate),
        "smooth": max(picture.size) > SMALL,
        "ticks": [round(tick, 2) for tick in ticks],
        "tiles": [tile(word, picture) for word in frame.words],
    }


def tile(word: Word, picture: Image.Image) -> Tile:
    """The tile of a word, on the picture that the step was looking at."""
    heat = word.heat.float().cpu() / word.heat.mean().item() / BRIGHTEST
    return Tile(word.text, f"{100 * word.share:.0f} %", data_url(glowing(picture, heat)))


def glowing(picture: Image.Image, heat: Tensor) -> Image.Image:
    """The picture in grey, small, in the colours of the heat (h, w), from 0 to 1."""
    small = picture.copy()
    small.thumbnail((SMALL, SMALL))
    stops = torch.tensor(COLOURS, dtype=torch.float32)
    place = heat.clamp(0, 1) * (len(stops) - 1)
    below = place.floor().long().clamp(max=len(stops) - 2)
    part = (place - below)[..., None]
    colours = (1 - part) * stops[below] + part * stops[below + 1]  # (h, w, 3)
    cover = Image.fromarray(colours.round().byte().numpy())
    cover = cover.resize(small.size, Image.Resampling.NEAREST)
    return Image.blend(small.convert("L").convert("RGB"), cover, GLOW)


def data_url(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    file = io.BytesIO()
    if max(picture.size) <= SMALL:
        picture.save(file, "PNG")
        kind = "png"
    else:
        picture.save(file, "WEBP", quality=90)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def message(text: str) -> str:
    """A line that says what is wrong, or nothing."""
    return _environment().get_template("message.html").render(text=text)


def heading(text: str) -> str:
    """The head of the page."""
    return _environment().get_template("heading.html").render(text=text)
