"""The page: its functions, without a browser, and what it is made of, where gradio is there."""

import base64
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from stand_ins import Lengths

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.commands import play
from tinyldm.errors import InputError
from tinyldm.playground import page as page_module
from tinyldm.playground.cards import BRIGHTEST, COLOURS, card, glowing, message
from tinyldm.playground.drawing import Asked, Setting, draw
from tinyldm.playground.page import LATENTS, PICTURES, Desk, in_words
from tinyldm.playground.serving import listen, style

PROMPT = "Pixel art of a green ghost, waving."
SIDES = (3.0, "dpm++", 4, 1.0, "ddim", 3.0)  # guidance, solver, steps of A and of B
ROOT = Path(__file__).parents[2]


class Reader(HTMLParser):
    """The text of a card and its pictures: what an <img> shows, by its words."""

    def __init__(self, html):
        super().__init__()
        self.text, self.pictures, self.tags = "", {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        if tag == "img":
            kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", given["src"]).groups()
            picture = Image.open(io.BytesIO(base64.b64decode(data)))
            assert picture.format.lower() == kind
            self.pictures[given["alt"]] = picture

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def shown(model):
    """All that Desk.draw shows."""
    return list(Desk(model).draw(PROMPT, 7, None, 0.75, PICTURES, *SIDES))


def test_every_step_is_shown(shown):
    assert len(shown) == 4 + 3
    assert {told for told, *_ in shown} == {""}
    steps = [re.search(r"step (\d) of 4", first) for _, first, _, _ in shown]
    assert sorted({int(found[1]) for found in steps}) == [1, 2, 3, 4]
    assert "nothing drawn yet" in shown[0][2]  # B has not begun
    assert "step 3 of 3" in shown[-1][2]


def test_the_last_cards_hold_the_pictures_of_a_call(model, shown):
    a = model(PROMPT, seed=7, guidance=3, solver="dpm++", steps=4)[0]
    b = model(PROMPT, seed=7, guidance=1, solver="ddim", steps=3)[0]
    for picture, html in ((a, shown[-1][1]), (b, shown[-1][2])):
        pictures = Reader(html).pictures
        assert pictures["x_t"].tobytes() == picture.tobytes()
        assert pictures["the estimate of x0"].tobytes() == picture.tobytes()
        assert {f"attention to {word}" for word in PROMPT.split()} < pictures.keys()


def test_looking_back_shows_an_earlier_step(model, shown):
    desk, drawing = Desk(model), shown[-1][3]
    level = model.schedule.grid(4)[1]
    first, second = desk.look_back(drawing, 0, PICTURES)
    assert "step 1 of 4" in first
    assert "step 1 of 3" in second
    told = " ".join(Reader(first).text.split())
    assert f"at t = {level.t:.0f}: {level.alpha:.2f} x0 + {level.sigma:.2f}" in told
    latents = Reader(desk.look_back(drawing, 100, LATENTS)[0]).pictures["x_t"]
    assert latents.tobytes() == drawing.last[0].latents[0].tobytes()
    assert "nothing drawn yet" in desk.look_back(None, 50, PICTURES)[0]


def test_a_picture_to_draw_on(model, tmp_path):
    init = str(tmp_path / "red.png")
    Image.new("RGBA", (40, 30), (200, 30, 30, 128)).save(init)
    *_, last = Desk(model).draw(PROMPT, 1, init, 0.5, PICTURES, *SIDES)
    expected = model(PROMPT, seed=1, init=init, strength=0.5, guidance=3, solver="dpm++", steps=4)
    assert Reader(last[1]).pictures["x_t"].tobytes() == expected[0].tobytes()


def test_a_file_that_is_no_picture_is_told_by_its_name(model, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    (only,) = Desk(model).draw(PROMPT, 1, str(file), 0.5, PICTURES, *SIDES)
    assert Reader(only[0]).text.startswith("notes.png: ")
    assert only[1:] == (None, None, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": None}, "seed: expected a number, got nothing"),
        ({"seed": -1}, "seed -1: expected a whole number"),
        ({"seed": 1.5}, "seed 1.5: expected a whole number"),
        ({"seed": float("nan")}, "seed nan: expected a whole number"),
        ({"steps": None}, "steps: expected a number, got nothing"),
        ({"steps": 0}, "steps 0: expected a whole number"),
        ({"steps": 1001}, "steps 1001: sampling takes between 1 and 1000 steps, got 1001"),
        ({"guidance": float("inf")}, "guidance inf: expected a number"),
        ({"guidance": None}, "guidance: expected a number, got nothing"),
        ({"solver": "consistency"}, "expected another solver"),
        ({"solver": "x<b>"}, "x<b>"),
    ],
)
def test_what_does_not_fit_is_a_message_and_the_pictures_stay(model, change, told):
    given = {"seed": 1, "guidance": 3.0, "solver": "dpm++", "steps": 4, **change}
    sides = (given["guidance"], given["solver"], given["steps"])
    (only,) = Desk(model).draw(PROMPT, given["seed"], None, 0.75, PICTURES, *sides, *SIDES[3:])
    read = Reader(only[0])
    assert told in read.text
    assert "--" not in read.text
    assert read.tags == ["p"]
    assert only[1:] == (None, None, None)


def test_pictures_that_are_not_finite_are_a_message(model):
    class Broken:
        def decode(self, latents):
            return torch.full((len(latents), 3, 32, 32), torch.nan)

    desk = Desk(replace(model, vae=Broken()))
    (only,) = desk.draw(PROMPT, 1, None, 0.75, PICTURES, *SIDES)
    assert "the pictures are not finite numbers with guidance 3" in Reader(only[0]).text
    assert only[1:] == (None, None, None)


def test_errors_lose_their_command_line():
    error = InputError("--guidance-rescale 7: expected 0 to 1 (see sample.py --help)")
    assert in_words(error) == "guidance rescale 7: expected 0 to 1"
    assert in_words(InputError("prompt 'a-b --c'")) == "prompt 'a-b c'"
    assert message("") == ""


def test_words_of_a_prompt_are_no_markup(model):
    prompt = '<script>alert(1)</script> "><img src=x onerror=y>'
    setting = Setting(1.0, "ddim", 1)
    *_, drawing = draw(model, Asked(prompt), (setting, setting))
    read = Reader(card("A", drawing.last[0]))
    assert "script" not in read.tags
    assert "<script>alert(1)</script>" in read.text
    assert len(read.pictures) == 2 + len(drawing.last[0].words)  # all of them data


def test_attention_glows_where_it_is():
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    heat = torch.zeros(4, 4)
    heat[1, 2] = BRIGHTEST  # beyond 1, the brightest
    picture = glowing(grey, heat)
    light = [[sum(picture.getpixel((16 * x + 8, 16 * y + 8))) for x in range(4)] for y in range(4)]
    assert max(max(row) for row in light) == light[1][2]
    assert light[0][0] < light[1][2] / 2
    brightness = [sum(colour) for colour in COLOURS]
    assert brightness == sorted(brightness)


def test_facts_are_those_of_the_model(model):
    assert model.facts.endswith(
        "step-0000003 after 3 steps: 32x32 pixels, cosine schedule, predicts v"
    )


def test_the_page_fetches_nothing():
    for text in (style(), card("A", None)):
        assert not re.search(r"@import|url\(|https?:|<script|<link", text)


# ---- the page itself


LABELS = """
import json, sys, tinyldm
from tinyldm.playground.page import build
page = build(tinyldm.load(sys.argv[1], device="cpu"))
labels = [part["props"].get("label") for part in page.get_config_file()["components"]]
print(json.dumps([labels, page.analytics_enabled, page.share]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
def test_the_page_has_what_is_asked_for(trained):
    """Built in a process of its own, for gradio leaves an event loop behind."""
    done = subprocess.run(
        [sys.executable, "-c", LABELS, str(trained)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    labels, analytics, share = json.loads(done.stdout.splitlines()[-1])
    sides = {f"{name}: {what}" for name in "AB" for what in ("solver", "steps", "guidance")}
    assert set(labels) >= sides | {"prompt", "seed"}
    assert not analytics
    assert not share


# ---- the command


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot listen there: Address alr"):
            listen("127.0.0.1", port)
        with listen("127.0.0.1", None) as second:
            assert second.getsockname()[1] > port
    with pytest.raises(InputError, match="--host no such host: expected an address of this"):
        listen("no such host", None)
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1 --port 7860 to 7959: cannot"):
        listen("192.0.2.1", None)  # 5737: an address that no machine has


def test_without_gradio_one_line_says_what_to_install(trained, monkeypatch, capsys):
    monkeypatch.setattr(play, "find_spec", lambda name: None)
    assert dispatch(COMMANDS, ["play", str(trained)]) == 2
    assert capsys.readouterr().err == "error: play needs gradio: pip install 'tinyldm[play]'\n"


def test_a_run_that_needs_files_is_refused_before_a_page_is_served(
    model, trained, monkeypatch, capsys
):
    class Maps(Lengths):
        map_size = (8, 8)

    def loaded(run, device):
        return page_module.Model(model.checkpoint, model.vae, Maps(), model.task, model.device)

    monkeypatch.setattr("tinyldm.model.load", loaded)
    monkeypatch.setattr(play, "find_spec", lambda name: True)
    assert dispatch(COMMANDS, ["play", str(trained), "--no-browser"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "play takes runs whose prompts are captions, labels or classes" in line
