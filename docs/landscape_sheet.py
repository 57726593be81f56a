"""Maps, drawn landscapes and their references, one above the other.

python docs/landscape_sheet.py SUBMISSION label_to_img.json OUT.png
"""

import argparse
import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

from tinyldm.data.examples import Request
from tinyldm.data.images import grid, load_image
from tinyldm.tasks.base import find_task
from tinyldm.tasks.landscape import Scene
from tinyldm.tasks.segmentation import CLASSES, load_map


def palette() -> np.ndarray:
    """A colour for each class, uint8 (classes, 3)."""
    colours = []
    for k in range(len(CLASSES)):
        hue = k * 0.382 % 1
        saturation = 0.35 + 0.3 * (k % 3)
        value = 0.95 - 0.2 * (k % 2)
        colours.append(colorsys.hsv_to_rgb(hue, saturation, value))
    return (255 * np.array(colours)).astype(np.uint8)


def column(request: Request, submission: Path, colours: np.ndarray) -> Image.Image:
    """The map of a request, the picture that was drawn from it, and the reference."""
    scene = Scene.of(request.prompt)
    drawn = load_image(submission / request.name)
    painted = Image.fromarray(colours[np.asarray(load_map(scene.map_file))])
    shown = [painted, drawn, load_image(scene.reference_file)]
    return grid([image.resize(drawn.size, Image.Resampling.NEAREST) for image in shown], 1, gap=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submission", type=Path, help="the folder that sample.py wrote")
    parser.add_argument("prompts", type=Path, help="label_to_img.json")
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2)
    options = parser.parse_args()
    requests = find_task("landscape").requests(options.prompts)
    shown = requests[: options.columns * options.rows]
    colours = palette()
    columns = [column(request, options.submission, colours) for request in shown]
    grid(columns, options.columns).save(options.out)


if __name__ == "__main__":
    main()
