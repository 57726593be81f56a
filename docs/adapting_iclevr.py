"""What a trained run of i-CLEVR learns besides: the runs, figures and picture of adapting.md.

    python docs/adapting_iclevr.py runs/iclevr-1 --data iclevr --judge judge         # all parts
    python docs/adapting_iclevr.py runs/iclevr-1 --data iclevr --judge judge score   # one of them

The parts are those of adapting.py; folders are named data/iclevr-grey, runs/iclevr-grey, and so on.
There is one run more, iclevr-grey-all, a LoRA of all layers. A tenth of the scenes is held out from
the trainings of this script, the very tenth that the judge of `python -m tinyldm evaluator train
--data iclevr` is measured on; data/iclevr-unseen holds the pictures of 32 of them. The run to adapt
has seen them, unless it was trained with --hold-out 0.1.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from adapting import (
    DOCS,
    DRAW,
    MANY,
    TRAIN,
    Plan,
    agreement,
    bicubic,
    colour,
    grey,
    likeness,
    options_of,
    pictures,
)
from PIL import Image

from tinyldm.data.examples import Example
from tinyldm.data.images import load_image, resize, to_bytes
from tinyldm.data.latents import data_order
from tinyldm.scores.evaluator import Evaluator
from tinyldm.tasks.base import read_examples
from tinyldm.tasks.judges import exact_accuracy, top_k_accuracy
from tinyldm.tasks.labels import wanted_labels

PREFIX = "iclevr-"
TASK = "docs.examples.outlined_labels:OutlinedLabels"
ALL_LAYERS = (
    "--from {base} --lora 4 --lora-layers all --data data/{prefix}grey "
    "--max-steps 200 --batch-size 16"
)
SIZE = (64, 64)
UNSEEN = 32  # pictures to score
HELD_OUT = 0.1  # as scores/evaluator.py has it
EDGE = 32  # as in adapting.py; grey things on a grey floor have fainter outlines than monsters


def split(data: str) -> tuple[list[Example], list[Example]]:
    """The pictures to learn from, and the fullest picture of each scene that is held out."""
    _, examples = read_examples(data, task="labels", hold_out=HELD_OUT)
    fullest: dict[str, Example] = {}
    for example in examples.held_out:
        scene = re.match(examples.layout.subject, example.name)[0]
        fullest[scene] = max(fullest.get(scene, example), example, key=objects)
    return list(examples), list(fullest.values())


def objects(example: Example) -> int:
    """How many labels a picture has."""
    return len(example.prompts[0].names)


def write_labelled(folder: Path, examples: list[Example], names: Path, changed) -> None:
    """A folder as i-CLEVR's; changed(image) is the picture that is written."""
    (folder / "train").mkdir(parents=True)
    labels = {}
    for example in examples:
        picture = changed(resize(load_image(example.image), SIZE))
        picture.save(folder / "train" / example.name)
        labels[example.name] = list(example.prompts[0].names)
    (folder / "train.json").write_text(json.dumps(labels, indent=1))
    shutil.copy(names, folder / "objects.json")


def write_data(plan: Plan, data: str) -> None:
    """Two sets to learn from, and one of scenes that are in neither."""
    known, apart = split(data)
    for name, count in MANY.items():
        folder = Path(f"data/{PREFIX}{name}")
        if not folder.exists():
            order = data_order(len(known), plan.few(count), seed=0, rank=0, world=1, step=0)
            chosen = [known[k] for k in order.tolist()]
            changed = grey if name == "grey" else Image.Image.copy
            write_labelled(folder, chosen, Path(data, "objects.json"), changed)
    plan.unseen.mkdir(exist_ok=True)
    captions, sketches = [], []
    for k, example in enumerate(apart[-plan.few(UNSEEN) :]):
        file = plan.unseen / f"{k:04d}.png"
        resize(load_image(example.image), SIZE).save(file)
        captions.append(str(example.prompts[0]))
        sketches.append(f"{file} | {captions[-1]}")
    Path(f"data/{PREFIX}captions.txt").write_text("\n".join(captions) + "\n")
    Path(f"data/{PREFIX}sketches.txt").write_text("\n".join(sketches) + "\n")


def right_shapes(logits: torch.Tensor, asked: torch.Tensor, names: tuple[str, ...]) -> float:
    """The share of pictures that show the shapes asked for, whatever the colours.

    A shape counts as much as the likeliest label that has it. Pictures that ask for all shapes
    are left out: they could not be wrong. logits: (b, labels); asked: (b, labels) bool
    """
    shapes = sorted({name.split()[-1] for name in names})
    places = [[name.split()[-1] == shape for name in names] for shape in shapes]
    found = torch.stack([logits[:, place].amax(1) for place in torch.tensor(places)], 1)
    wanted = torch.stack([asked[:, place].any(1) for place in torch.tensor(places)], 1)
    some = ~wanted.all(1)
    return exact_accuracy(found[some], wanted[some])


def score(plan: Plan, judge: Evaluator) -> None:
    """Print how well each run does what it learned."""
    originals = pictures(plan.unseen)
    kept, kept_grey = (
        plan.through_vae(each) for each in (originals, [grey(image) for image in originals])
    )
    captions = Path(f"data/{PREFIX}captions.txt").read_text().splitlines()
    asked = wanted_labels(captions, judge.names)

    def logits(images: list[Image.Image]) -> torch.Tensor:
        return judge.logits(torch.stack([to_bytes(resize(each, judge.size)) for each in images]))

    def labels(images: list[Image.Image]) -> dict[str, float]:
        return {"labels": top_k_accuracy(logits(images), asked)}

    def without_colours(images: list[Image.Image]) -> dict[str, float]:
        shapes = right_shapes(logits(images), asked, judge.names)
        return {"channels": colour(images), "shapes": shapes, **labels(images)}

    def followed(images: list[Image.Image]) -> dict[str, float]:
        return {"F1": agreement(images, originals, EDGE), **labels(images)}

    def enlarged(images: list[Image.Image]) -> dict[str, float]:
        return {**likeness(images, originals), **labels(images)}

    base, control, drawn = (plan.drawn(name) for name in ("base", "control", "super"))
    learned = {"grey": plan.drawn("grey"), "grey_all": plan.drawn("grey-all")}
    ends = {"VAE": [kept], "grey_VAE": [kept_grey]}
    told = "the difference of the brightest and the darkest channel, 0 to 255; shapes; labels"
    plan.rows("LoRA", told, without_colours, base=base, **learned, **ends)
    told = "F1 with the asked ones, within a pixel; labels"
    plan.rows("outlines", told, followed, base=base, control=control, VAE=[kept])
    told = "with the large pictures; with the small ones; labels"
    large = [bicubic(image) for image in originals]
    plan.rows(
        "super-resolution", told, enlarged, **{"bicubic": [large], "super": drawn, "VAE": [kept]}
    )


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--data", required=True, help="the folder of i-CLEVR")
    parser.add_argument("--judge", required=True, help="what evaluator train has written for it")
    options = parser.parse_args()
    train = {**TRAIN, "grey-all": ALL_LAYERS}
    draw = {**DRAW, "grey-all": ("runs/{prefix}grey-all", "data/{prefix}captions.txt")}
    plan = Plan(options.base, PREFIX, TASK, options.trial, train=train, draw=draw)
    own = {
        "data": lambda: write_data(plan, options.data),
        "score": lambda: score(plan, Evaluator.load(options.judge)),
        "figure": lambda: plan.figure(DOCS / "adapting_iclevr.png"),
    }
    plan.work(options.part, own)


if __name__ == "__main__":
    main()
