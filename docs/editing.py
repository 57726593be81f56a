"""Draws docs/editing.png: what a run of the toy set makes of a picture, two prompts, two seeds.

    python docs/editing.py RUN

Each row is what the command above it draws, side by side. docs/anagrams.png is what two of the
examples draw.
"""

import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageFont, ImageOps

import sample
from tinyldm.data.images import grid, load_image
from tinyldm.toy.monsters import write_toy

DOCS = Path(__file__).resolve().parent
STEPS, SIZE, COLUMNS = 25, 128, 6
BLUE = "Blue square monster with a pair of eyes and a golden crown."
RED = BLUE.replace("Blue", "Red")
GHOST = "Blue ghost-like monster with a pair of eyes and a golden crown."
GREEN = "Green mushroom-shaped monster with one eye and horns."
BARE = "Square monster with a pair of eyes."
TWOFOLD = ("a blue ghost-like monster with one eye", "a red star-shaped monster with horns")


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def draw(run: str, line: str) -> list[Image.Image]:
    """The pictures that sample.py draws with these options, in the order of their names."""
    with TemporaryDirectory(dir=".") as out, quiet():
        words = ["--run", run, "--steps", str(STEPS), "--out", f"{out}/drawn", *shlex.split(line)]
        sample.draw(sample.SampleOptions(**vars(sample.parser().parse_args(words))))
        return [load_image(file) for file in sorted(Path(out, "drawn").glob("*.png"))]


def quoted(*texts: str) -> str:
    """The same as options: --prompt for each text."""
    return " ".join(f"--prompt {shlex.quote(text)}" for text in texts)


def picture_and_mask() -> None:
    """init.png, a drawing of the toy set, and mask.png, white over its upper half."""
    write_toy("toy", train_monsters=1)
    crowned = next(iter(sorted(Path("toy/train").glob("*_main_*.png"))))
    init = load_image(crowned)
    init.save("init.png")
    mask = Image.new("L", init.size)
    mask.paste(255, (0, 0, init.width, init.height * 9 // 20))
    mask.save("mask.png")


def rows(run: str):
    """(command, pictures, what to write above each) of each row."""
    init, mask = load_image("init.png"), load_image("mask.png")
    framed = ImageOps.expand(mask.crop((1, 1, mask.width - 1, mask.height - 1)), 1, "grey")
    strengths = (0.3, 0.5, 0.7, 0.9)
    drawn = [draw(run, f"--init init.png --strength {s} {quoted(RED)}")[0] for s in strengths]
    yield (
        f'--init init.png --strength S --prompt "{RED}"',
        [init, *drawn],
        ["init.png", *(f"S = {s}" for s in strengths)],
    )
    horns = "Blue square monster with a pair of eyes and horns."
    drawn = draw(run, f"--init init.png --mask mask.png {quoted(*[horns] * 4)}")
    yield (
        f'--init init.png --mask mask.png --prompt "{horns}"',
        [init, framed, *drawn],
        ["init.png", "mask.png", *(f"picture {k}" for k in range(4))],
    )
    drawn = draw(run, f"--init init.png --invert {shlex.quote(BLUE)} {quoted(BLUE, RED, GHOST)}")
    known = draw(run, f"--init init.png --invert {shlex.quote(BLUE)} {quoted(BLUE)} --guidance 1")
    yield (
        f'--init init.png --invert "{BLUE}" --prompt ...',
        [init, *known, *drawn],
        [
            "init.png",
            "... --guidance 1",
            "the same prompt",
            "Red square ...",
            "Blue ghost-like ...",
        ],
    )
    row = [f"{20 * k} %" for k in range(6)]
    between = draw(run, f"--interpolate 6 {quoted(RED, GREEN)}")
    yield f'--interpolate 6 --prompt "Red square ..." --prompt "{GREEN}"', between, row
    between = draw(run, f"--interpolate 6 --to-seed 3 {quoted(GREEN)}")
    yield f'--interpolate 6 --to-seed 3 --prompt "{GREEN}"', between, row
    parts = ["", '--and "red monster"', '--and "red monster" 0.3', '--and "red monster" -1']
    parts += ['--and "monster with horns"', '--and "red monster" --and "monster with horns"']
    drawn = [draw(run, f"{quoted(BARE)} {part}")[0] for part in parts]
    words = ["", "red", "red 0.3", "red -1", "horns", "red and horns"]
    yield f'--prompt "{BARE}" --and ...', drawn, words


def sheet(parts) -> Image.Image:
    """The rows, each under its command."""
    font = ImageFont.load_default(13)
    width, height = COLUMNS * (SIZE + 2) + 2, SIZE + 38
    parts = list(parts)
    whole = Image.new("RGB", (width, height * len(parts)), "white")
    pen = ImageDraw.Draw(whole)
    for k, (command, pictures, words) in enumerate(parts):
        large = [picture.resize((SIZE, SIZE), Image.Resampling.NEAREST) for picture in pictures]
        pen.text((3, k * height + 4), command, fill="black", font=font)
        whole.paste(grid(large, columns=len(large), words=words), (0, k * height + 22))
    return whole


def twofold(run: str) -> Image.Image:
    """What the examples draw, each under its command."""
    parts, font = [], ImageFont.load_default(13)
    first, second = TWOFOLD
    for name in ("anagram", "hybrid"):
        sys.argv = [name, run, *TWOFOLD]
        with quiet():
            runpy.run_path(str(DOCS / "examples" / f"{name}.py"), run_name="__main__")
        drawn = load_image(f"{name}.png")
        large = drawn.resize((2 * drawn.width, 2 * drawn.height), Image.Resampling.NEAREST)
        parts.append((f'examples/{name}.py RUN "{first}"\n"{second}"', large))
    width = max(drawn.width for _, drawn in parts)
    above = 40  # pixels for two lines
    whole = Image.new("RGB", (width, sum(drawn.height + above for _, drawn in parts)), "white")
    pen, top = ImageDraw.Draw(whole), 0
    for command, drawn in parts:
        pen.text((3, top + 4), command, fill="black", font=font)
        whole.paste(drawn, (0, top + above))
        top += drawn.height + above
    return whole


if __name__ == "__main__":
    (run,) = sys.argv[1:]
    run = str(Path(run).resolve())
    with TemporaryDirectory() as folder, chdir(folder):
        picture_and_mask()
        sheet(rows(run)).save(DOCS / "editing.png", optimize=True)
        twofold(run).save(DOCS / "anagrams.png", optimize=True)
