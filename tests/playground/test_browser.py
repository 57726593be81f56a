"""The playground in a real browser: what is typed and pressed there, and what is seen.

Skipped where gradio, playwright or Chromium is missing. Chromium is not playwright's own: one that
is installed on the machine will do.
"""

import base64
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import tinyldm

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    "--disable-background-networking",
)
PATIENCE = 180_000  # ms: on a busy machine, a browser takes its time
PROMPT = "a green ghost, waving"
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    """The command `play` as it is called, and its address; ended by Ctrl-C."""
    temporary = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyldm", "play", str(trained), "--no-browser", "--device", "cpu"],
        cwd=trained.parents[1],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(temporary),
            "http_proxy": "http://127.0.0.1:9",  # there is none; it must not be asked
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        yield re.match(r"(http://127\.0\.0\.1:\d+): play with ", line)[1]
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE / 1000)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert error == "interrupted\n"
    assert process.returncode == 130
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), timeout=PATIENCE)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, server):
    """The page, opened; at the end, it has fetched nothing from elsewhere and logged no error."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    requested, errors = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server)
    yield page
    page.close()
    assert requested
    assert [url for url in requested if not url.startswith((server, "data:", "blob:"))] == []
    assert errors == []


def fill(page, **values):
    """Type into the fields by their labels, of which `A_steps` is "A: steps"."""
    for name, value in values.items():
        page.get_by_label(name.replace("_", ": "), exact=True).fill(str(value))


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def side(page, name):
    return page.get_by_role("region", name=f"side {name}")


def picture(page, name, words):
    """The picture that a side shows."""
    source = side(page, name).get_by_alt_text(words, exact=True).get_attribute("src")
    return Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))


def test_a_prompt_is_drawn_step_by_step_on_two_sides(page, trained):
    fill(page, prompt=PROMPT, seed=3, A_steps=4, B_steps=3, A_guidance=2, B_guidance=1)
    press(page, "Draw")
    side(page, "A").get_by_text("step 4 of 4").wait_for()
    side(page, "B").get_by_text("step 3 of 3").wait_for()
    model = tinyldm.load(trained, device="cpu")
    for name, how in {"A": {"steps": 4, "guidance": 2}, "B": {"steps": 3, "guidance": 1}}.items():
        (expected,) = model(PROMPT, seed=3, **how)
        for words in ("x_t", "the estimate of x0"):
            assert picture(page, name, words).tobytes() == expected.tobytes()
        for word in PROMPT.split():
            assert side(page, name).get_by_alt_text(f"attention to {word}").is_visible()

    # back to the first step, and from there to the latents
    before = picture(page, "A", "x_t").tobytes()
    page.get_by_label("number input for look back").fill("0")
    page.keyboard.press("Enter")
    side(page, "A").get_by_text("step 1 of 4").wait_for()
    side(page, "B").get_by_text("step 1 of 3").wait_for()
    noisy = picture(page, "A", "x_t")
    assert noisy.tobytes() != before
    page.get_by_label("latents").check()
    page.wait_for_function(
        "old => document.querySelector('img[alt=x_t]').src != old",
        arg=side(page, "A").get_by_alt_text("x_t").get_attribute("src"),
    )


def test_steps_are_seen_while_the_drawing_goes_on(page):
    page.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                for (const line of document.querySelectorAll('.play-step'))
                    window.seen.add(line.innerText);
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    fill(page, prompt=PROMPT, A_steps=60, B_steps=50)
    press(page, "Draw")
    side(page, "A").get_by_text("step 60 of 60").wait_for()
    side(page, "B").get_by_text("step 50 of 50").wait_for()
    seen = page.evaluate("() => [...window.seen]")
    for count in (60, 50):  # a busy browser may leave some out
        on_the_way = {line for line in seen if re.fullmatch(rf"step \d+ of {count}", line)}
        assert len(on_the_way) >= 5, seen


def test_what_does_not_fit_is_told_on_the_page(page):
    fill(page, prompt=PROMPT, A_steps=5000)
    press(page, "Draw")
    page.get_by_role("alert").wait_for()
    assert "between 1 and 1000 steps, got 5000" in page.get_by_role("alert").inner_text()
    assert "Traceback" not in page.content()
    fill(page, A_steps=2, B_steps=2)
    press(page, "Draw")
    side(page, "B").get_by_text("step 2 of 2").wait_for()
    page.get_by_role("alert").wait_for(state="hidden")


def test_a_picture_is_drawn_on_and_a_file_that_is_none_is_told(page, trained, tmp_path):
    init = tmp_path / "red.png"
    Image.new("RGB", (32, 32), (200, 30, 30)).save(init)
    fill(page, prompt=PROMPT, seed=1, A_steps=4, B_steps=4, A_guidance=1, B_guidance=1)
    page.get_by_role("button", name="draw on a picture").click()
    page.locator("input[type=file]").set_input_files(init)
    page.get_by_text("red.png").first.wait_for()
    press(page, "Draw")
    side(page, "A").get_by_text("step 3 of 3").wait_for()  # strength 0.75 of 4 steps
    model = tinyldm.load(trained, device="cpu")
    (expected,) = model(PROMPT, seed=1, steps=4, guidance=1, init=init, strength=0.75)
    assert picture(page, "A", "x_t").tobytes() == expected.tobytes()

    page.get_by_label("Clear").first.click()
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_text("broken.png").first.wait_for()
    press(page, "Draw")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("broken.png: ")
