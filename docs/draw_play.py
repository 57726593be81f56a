"""Takes docs/play.png, a screenshot of the playground: python docs/draw_play.py --run runs/toy-1

It needs the extra `play`, playwright (pip install -c constraints.txt playwright) and a Chromium.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    "--disable-background-networking",
)
PROMPT = "Green slime with horns and one eye, standing."
STEPS = 10
PATIENCE = 300_000  # ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/toy-1")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--back", default="60", help="how far to look back, in percent")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "play.png")
    options = parser.parse_args()
    command = [sys.executable, "-m", "tinyldm", "play", options.run, "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = re.match(r"(\S+): play with", server.stdout.readline())
        assert address is not None
        with sync_playwright() as play:
            found = next(filter(None, map(shutil.which, CHROMIUM)), None)
            browser = play.chromium.launch(
                executable_path=found, args=list(FLAGS), timeout=PATIENCE
            )
            page = browser.new_page(viewport={"width": 1140, "height": 800})
            page.set_default_timeout(PATIENCE)
            page.goto(address[1])
            draw(page, options)
            page.screenshot(path=options.out, full_page=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    shrink(options.out)
    print(options.out)


def draw(page: Page, options: argparse.Namespace) -> None:
    """Draw the prompt with and without guidance, and look back at a step on the way."""
    fields = {"prompt": options.prompt, "seed": options.seed}
    fields |= {f"{side}: steps": str(STEPS) for side in "AB"}
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_text(f"step {STEPS} of {STEPS}").nth(1).wait_for()
    page.get_by_label("number input for look back").fill(options.back)
    page.keyboard.press("Enter")
    step = round(int(options.back) / 100 * (STEPS - 1)) + 1
    page.get_by_text(f"step {step} of {STEPS}").nth(1).wait_for()
    page.mouse.click(5, 5)  # out of the field
    page.wait_for_timeout(1000)


def shrink(file: Path) -> None:
    """256 colours are enough for it, and a third of the bytes."""
    from PIL import Image

    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


if __name__ == "__main__":
    main()
