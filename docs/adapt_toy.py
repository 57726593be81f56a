"""The data and the picture of docs/adapting.md, from the toy monsters.

    python docs/adapt_toy.py data        data/grey and data/some: few monsters, without colours and
                                         with them, and data/outlines: four to be followed
    python docs/adapt_toy.py picture BASE GREY CONTROL SUPER
                                         docs/adapting.png, of four folders that sample.py drew
    python docs/adapt_toy.py score DRAWN ORIGINALS
                                         PSNR and SSIM of enlarged pictures, beside bicubic ones

The page has the commands in between.
"""

import json
import sys
from pathlib import Path

from PIL import Image

from tinyldm.data.images import from_bytes, grid, load_image, resize, to_bytes
from tinyldm.data.latents import data_order
from tinyldm.scores.similarity import psnr, ssim
from tinyldm.tasks.base import read_examples
from tinyldm.tasks.outline import outline
from tinyldm.toy.folder import data_folder

DOCS = Path(__file__).parent
MANY = 400
SHOWN = 4  # pictures in a row
FACTOR = 4


def write_folder(folder: Path, examples, changed) -> None:
    """An image folder with captions; changed(image) is the picture that is written."""
    folder.mkdir(parents=True)
    lines = []
    for example in examples:
        changed(load_image(example.image)).save(folder / example.name)
        lines.append(json.dumps({"file_name": example.name, "text": str(example.prompts[0])}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def write_data() -> None:
    """The two small sets, of which the second also holds what is shown."""
    toy = data_folder(None)
    _, examples = read_examples(toy)
    order = data_order(len(examples), MANY, seed=0, rank=0, world=1, step=0).tolist()
    some = [examples[k] for k in order]
    write_folder(Path("data/grey"), some, lambda image: image.convert("L").convert("RGB"))
    write_folder(Path("data/some"), some, lambda image: image)
    held_out = [examples[k] for k in range(len(examples)) if k not in set(order)]
    Path("data/outlines").mkdir()
    for example in held_out[:: len(held_out) // SHOWN][:SHOWN]:
        load_image(example.image).save(Path("data/outlines") / example.name)


def row(folder: Path) -> list[Image.Image]:
    """The first pictures of a folder."""
    return [load_image(file) for file in sorted(folder.glob("*.png"))[:SHOWN]]


def draw_picture(base: Path, grey: Path, control: Path, large: Path) -> None:
    """Left: a run and the same with LoRA. Right: outlines and what follows them; then 4x."""
    sources = row(Path("data/outlines"))
    size = sources[0].size[::-1]
    outlines = [outline(source).convert("RGB") for source in sources]
    small = [
        resize(resize(source, (size[0] // FACTOR, size[1] // FACTOR)), size) for source in sources
    ]
    rows = [row(base), row(grey), outlines, row(control), small, row(large)]
    shown = [resize(image, (96, 96)) for images in rows for image in images]
    sheet = grid(shown, columns=2 * SHOWN)
    sheet.quantize(128).save(DOCS / "adapting.png", optimize=True)


def score(drawn: Path, originals: Path) -> None:
    """Means over the pictures in a folder; an original is the one of the same stem."""
    found = {"drawn": [], "bicubic": []}
    for file in sorted(originals.glob("*.png")):
        original = load_image(file)
        size = original.size[::-1]
        small = resize(original, (size[0] // FACTOR, size[1] // FACTOR))
        pictures = {"drawn": load_image(drawn / file.name), "bicubic": resize(small, size)}
        truth = from_bytes(to_bytes(original))[None]
        for kind, picture in pictures.items():
            made = from_bytes(to_bytes(picture))[None]
            found[kind].append([psnr(made, truth).item(), ssim(made, truth).item()])
    for kind, scores in found.items():
        db, similar = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        print(f"{kind:>8}: PSNR {db:.2f} dB, SSIM {similar:.3f}, {len(scores)} pictures")


if __name__ == "__main__":
    if sys.argv[1:] == ["data"]:
        write_data()
    elif sys.argv[1:2] == ["score"] and len(sys.argv) == 4:
        score(*map(Path, sys.argv[2:]))
    elif sys.argv[1:2] == ["picture"] and len(sys.argv) == 6:
        draw_picture(*map(Path, sys.argv[2:]))
    else:
        sys.exit(__doc__)
