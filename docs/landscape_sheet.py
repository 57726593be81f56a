"""Maps, drawn landscapes and their references, one above the other.

Run from the repository: python docs/landscape_sheet.py SUBMISSION data/landscapes/label_to_img.json docs/landscapes.png
"""

import argparse
import colorsys
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinyldm.tasks.table import read_prompts

from tinyldm.data.images import grid, load_image
from tinyldm.tasks.landscape import CLASSES, load_map, parts

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("submission", type=Path, help="the folder that sample.py wrote")
parser.add_argument("prompts", type=Path, help="label_to_img.json")
parser.add_argument("out", type=Path, help="the picture to write")
parser.add_argument("--columns", type=int, default=6)
parser.add_argument("--rows", type=int, default=2)
options = parser.parse_args()

hues = [
    colorsys.hsv_to_rgb(k * 0.382 % 1, 0.35 + 0.3 * (k % 3), 0.95 - 0.2 * (k % 2))
    for k in range(len(CLASSES))
]
palette = (255 * np.array(hues)).astype(np.uint8)
prompts = read_prompts(options.prompts)[: options.columns * options.rows]
columns = []
for prompt in prompts:
    scene, reference = parts(prompt.text)
    drawn = load_image(options.submission / prompt.name)
    shown = (Image.fromarray(palette[np.asarray(load_map(scene))]), drawn, load_image(reference))
    columns.append(
        grid([image.resize(drawn.size, Image.Resampling.NEAREST) for image in shown], 1, gap=0)
    )
grid(columns, options.columns).save(options.out)
