"""Draws docs/toy.png: a monster in each row, its actions in the columns.

python docs/draw_toy.py
"""

from pathlib import Path

from PIL import Image

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

page = Image.new("RGB", (SIDE * len(ACTIONS), SIDE * len(ROWS)), "white")
for row, monster in enumerate(ROWS):
    for column, action in enumerate(ACTIONS):
        page.paste(draw(monster, action, 10 * row + column, SIDE), (SIDE * column, SIDE * row))
page.quantize(128).save(Path(__file__).parent / "toy.png", optimize=True)
