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
from tinyldm.tasks.classes import CLASSES  # noqa: E402
from tinyldm.tasks.landscape import load_map, parts  # noqa: E402
from tinyldm.tasks.table import read_prompts  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("submission", type=Path, help="the folder that sample.py wrote")
parser.add_argument("prompts", type=Path, help="label_to_img.json")
parser.add_argument("out", type=Path, help="the picture to write")
parser.add_argument("--columns", type=int, default=6)
parser.add_argument("--rows", type=int, default=2)
options = parser.parse_args()

hues = [colorsys.hsv_to_rgb(k * 0.382 % 1, 0.35 + 0.3 * (k % 3), 0.95 - 0.2 * (k % 2)) for k in range(len(CLASSES))]
palette = (255 * np.array(hues)).astype(np.uint8)
prompts = read_prompts(options.prompts)[: options.columns * options.rows]
with Image.open(options.submission / prompts[0].name) as first:
    w, h = first.size
sheet = Image.new("RGB", (options.columns * (w + 2), options.rows * (3 * h + 6)), "white")
for k, prompt in enumerate(prompts):
    scene, reference = parts(prompt.text)
    x, y = k % options.columns * (w + 2), k // options.columns * (3 * h + 6)
    with Image.open(options.submission / prompt.name) as drawn, Image.open(reference) as style:
        for row, image in enumerate((Image.fromarray(palette[np.asarray(load_map(scene))]), drawn, style)):
            sheet.paste(image.convert("RGB").resize((w, h), Image.Resampling.NEAREST), (x, y + row * h))
sheet.save(options.out)
