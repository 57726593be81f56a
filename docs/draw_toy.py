"""Draws docs/toy.png: a monster in each row, its actions in the columns.

    python docs/draw_toy.py [SAMPLES]

SAMPLES: the folder of the test prompts' pictures that sample.py drew. The first 64 of them become
docs/toy_samples.png, in place of docs/toy.png.
"""

import sys
from pathlib import Path

from tinyldm.data.images import grid, load_image
from tinyldm.sampling.folder import GRID
from tinyldm.toy.monsters import ACTIONS, Monster, draw

ROWS = [
    Monster("red", "round", "horns", 1),
    Monster("green", "star-shaped", "tail", 2),
    Monster("blue", "ghost-like", "crown", 3),
    Monster("yellow", "mushroom-like", "wings", 2),
    Monster("purple", "triangular", "spikes", 3),
    Monster("orange", "square", "horns", 2),
]
SIDE = 96

DOCS = Path(__file__).parent


def monsters():
    """Every action of each monster of ROWS."""
    images = []
    for row, monster in enumerate(ROWS):
        for column, action in enumerate(ACTIONS):
            images.append(draw(monster, action, 10 * row + column, SIDE))
    page = grid(images, columns=len(ACTIONS), gap=0)
    page.quantize(128).save(DOCS / "toy.png", optimize=True)


def samples(folder):
    """The sheet of the first 64 pictures that sample.py has left beside them."""
    load_image(folder / GRID).save(DOCS / "toy_samples.png", optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        samples(Path(sys.argv[1]))
    else:
        monsters()
