"""The page of the playground, in gradio: what is asked on top, the two sides below.

Its functions take what the page holds and return what it shows; they know nothing of a browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyldm.errors import InputError, printable
from tinyldm.model import Model
from tinyldm.playground.cards import card, heading, message
from tinyldm.playground.drawing import Asked, Footage, Setting, draw, own_settings
from tinyldm.sampling.edit_options import DEFAULT_STRENGTH
from tinyldm.sampling.settings import SOLVERS
from tinyldm.training.settings import TrainSettings

PICTURES, LATENTS = "pictures", "latents"
Shown = tuple[str, str | None, str | None, Footage | None]
"""The message, the cards of A and B, what is drawn. None leaves what is there."""


@dataclass(frozen=True)
class Desk:
    """The functions behind the page of a model."""

    model: Model

    def draw(
        self,
        prompt: str,
        seed: float | None,
        init: str | None,
        strength: float,
        view: str,
        *sides: Any,
    ) -> Iterator[Shown]:
        """What the page shows after each step, or what is wrong with what was asked for.

        init:  an image file to draw on
        sides: guidance, solver and steps of A, and those of B
        """
        try:
            settings = (Setting(*numbers(sides[:3])), Setting(*numbers(sides[3:])))
            asked = Asked(prompt, whole(needed("seed", seed)), init, strength)
            for footage in draw(self.model, asked, settings):
                yield "", *cards(footage, 1.0, view), footage
        except InputError as error:
            told = in_words(error)
            if init is not None:  # it lies in a folder of no interest
                told = told.replace(init, Path(init).name)
            yield message(told), None, None, None

    def look_back(self, footage: Footage | None, percent: float, view: str) -> tuple[str, str]:
        """The cards of what is drawn, so far on the way."""
        return cards(footage or Footage(), percent / 100, view)


def cards(footage: Footage, fraction: float, view: str) -> tuple[str, str]:
    """The cards of both sides."""
    first, second = footage.at(fraction)
    return card("A", first, view == LATENTS), card("B", second, view == LATENTS)


def numbers(side: tuple[Any, ...]) -> tuple[float, str, int]:
    """Guidance, solver and steps of a side as the page holds them; InputError for an empty one."""
    guidance, solver, steps = side
    return needed("guidance", guidance), solver, whole(needed("steps", steps))


def needed(name: str, value: Any) -> Any:
    """The value of a field; InputError for one that was left empty."""
    if value is None:
        raise InputError(f"{name}: expected a number, got nothing")
    return value


def whole(value: float) -> Any:
    """A number of a page, where all are floats, as an int if it is one."""
    return int(value) if value == value // 1 else value


def in_words(error: InputError) -> str:
    """What an error says, without the options of a command line."""
    text = re.sub(r" \(see \S.* --help\)$| --spacing \w+(?=:)", "", str(error))
    return printable(re.sub(r"--([a-z-]+)", lambda flag: flag[1].replace("-", " "), text))


def build(model: Model) -> Any:
    """The page of a model: gradio's Blocks."""
    import gradio as gr

    desk = Desk(model)
    with gr.Blocks(analytics_enabled=False, title=f"tinyldm: {model.checkpoint.path}") as page:
        gr.HTML(heading(model.facts), container=False)
        asked, start, stop = _asked(gr, model)
        warning = gr.HTML(visible=False, container=False)
        with gr.Row():
            first, second = own_settings(model)
            side_a, card_a = _side(gr, model, "A", first)
            side_b, card_b = _side(gr, model, "B", second)
        with gr.Row():
            how_far = gr.Slider(
                minimum=0,
                maximum=100,
                value=100,
                step=1,
                scale=3,
                label="look back: how far from noise to the picture, in percent",
            )
            view = gr.Radio([PICTURES, LATENTS], value=PICTURES, label="show x_t and x0 as")
        footage = gr.State(None)

        def steps(*inputs: Any) -> Iterator[tuple[Any, ...]]:
            newest: Any = 100  # where the first step sets the slider; then it is left alone
            for told, *shown in desk.draw(*inputs):
                rest = (gr.skip() if part is None else part for part in shown)
                yield (gr.HTML(told, visible=bool(told)), *rest, gr.skip() if told else newest)
                newest = gr.skip()

        run = gr.on(
            [start.click, asked[0].submit],
            steps,
            [*asked, view, *side_a, *side_b],
            [warning, card_a, card_b, footage, how_far],
            show_progress="hidden",
            concurrency_limit=1,
            api_visibility="private",
        )
        stop.click(None, cancels=[run], api_visibility="private")
        gr.on(
            [how_far.input, view.change],
            desk.look_back,
            [footage, how_far, view],
            [card_a, card_b],
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def _asked(gr: Any, model: Model) -> tuple[list[Any], Any, Any]:
    """What both sides draw, in the order of Desk.draw; the buttons that start and stop."""
    prompts = model.checkpoint.config["preview_prompts"] if model.task.prompted else []
    with gr.Row():
        prompt = gr.Textbox(
            prompts[0] if prompts else "",
            label="prompt",
            placeholder="what to draw",
            lines=2,
            max_lines=4,
            submit_btn=False,
            scale=8,
            visible=model.task.prompted,
        )
        seed = gr.Number(1, label="seed", precision=0, scale=1, min_width=100)
        with gr.Column(scale=1, min_width=110):
            start = gr.Button("Draw", variant="primary", size="md")
            stop = gr.Button("Stop", size="md")
    if len(prompts) > 1:
        shown = [[text] for text in dict.fromkeys(prompts)][:4]
        gr.Examples(shown, [prompt], label="prompts of the run's previews", cache_examples=False)
    with gr.Accordion("draw on a picture", open=False), gr.Row():
        init = gr.File(
            label="init: the picture to begin with", file_types=["image"], type="filepath"
        )
        strength = gr.Slider(
            minimum=0,
            maximum=1,
            value=DEFAULT_STRENGTH,
            step=0.05,
            label="strength: 0 keeps the picture, 1 forgets it",
        )
    return [prompt, seed, init, strength], start, stop


def _side(gr: Any, model: Model, name: str, setting: Setting) -> tuple[list[Any], Any]:
    """The fields of a side, guidance, solver and steps, and its card."""
    learned = model.checkpoint.config["settings"].get("cfg_drop", TrainSettings.cfg_drop)
    guided = model.task.prompted and learned > 0
    narrow = {"min_width": 100}
    with gr.Column(min_width=360):
        with gr.Row():
            solver = gr.Dropdown(
                list(SOLVERS), value=setting.solver, label=f"{name}: solver", **narrow
            )
            steps = gr.Number(setting.steps, label=f"{name}: steps", precision=0, **narrow)
            guidance = gr.Number(
                setting.guidance, label=f"{name}: guidance", step=0.5, visible=guided, **narrow
            )
        shown = gr.HTML(card(name, None), container=True, padding=True)
    return [guidance, solver, steps], shown
