"""Draws docs/toy.png: a monster in each row, its actions in the columns.

python docs/draw_toy.py
"""

from pathlib import Path

from tinyldm.data.images import grid
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

images = []
for row, monster in enumerate(ROWS):
    for column, action in enumerate(ACTIONS):
        images.append(draw(monster, action, 10 * row + column, SIDE))
page = grid(images, columns=len(ACTIONS), gap=0)
page.quantize(128).save(Path(__file__).parent / "toy.png", optimize=True)
