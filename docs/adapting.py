"""What a trained run of the toy set learns besides: the runs, figures and picture of adapting.md.

    python docs/adapting.py runs/toy-1            # all of the below, one after the other
    python docs/adapting.py runs/toy-1 data       # data/grey, data/some, data/unseen
    python docs/adapting.py runs/toy-1 count      # TFLOP of the trainings, by torch's counter
    python docs/adapting.py runs/toy-1 train      # runs/grey, runs/control and runs/super
    python docs/adapting.py runs/toy-1 draw       # samples/base, grey, control and super
    python docs/adapting.py runs/toy-1 score
    python docs/adapting.py runs/toy-1 figure     # docs/adapting.png

What is there already is left as it is, and an interrupted training goes on. data/unseen holds
monsters of the test captions, which no run has seen. train and draw print their commands. --trial
trains three steps and draws in two.
"""

import argparse
import json
import shlex
import tempfile
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch.utils.flop_counter import FlopCounterMode

import sample
import train
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes, to_pil
from tinyldm.data.latents import data_order
from tinyldm.device import pick_device
from tinyldm.scores import attributes
from tinyldm.scores.similarity import psnr, ssim
from tinyldm.tasks.base import read_examples
from tinyldm.tasks.outline import outline
from tinyldm.toy.folder import data_folder
from tinyldm.toy.monsters import ACTIONS, ATTRIBUTES, describe, draw, monsters
from tinyldm.training.checkpoint import find_checkpoint, read_config
from tinyldm.training.frozen_models import load_frozen
from tinyldm.training.options import train_parser

DOCS = Path(__file__).parent
MANY = {"grey": 200, "some": 1000}  # pictures to learn from
UNSEEN, SHOWN = 64, 6  # pictures to score, and those of them in the figure
FACTOR = 4
EDGE = 64  # from where on the gradient of a pixel, 0 to 255, counts as an outline
TRAIN = {  # run -> options of train.py
    "grey": "--from {base} --lora 4 --data data/grey --max-steps 200 --batch-size 16",
    "control": "--from {base} --controlnet --task outline --data data/some "
    "--max-steps 500 --batch-size 16",
    "super": "--task super-resolution --data data/some --vae tiny --optimizer muon "
    "--max-steps 500 --batch-size 16",
}
CAPTIONS, SKETCHES = "--prompts data/captions.txt", "--prompts data/sketches.txt"
DRAW = {  # folder in samples -> run, options of sample.py
    "base": ("{base}", CAPTIONS),
    "grey": ("runs/grey", CAPTIONS),
    "control": ("runs/control", SKETCHES),
    "super": ("runs/super", "--prompts data/unseen"),
}


def write_folder(folder: Path, examples, changed) -> None:
    """An image folder with captions; changed(image) is the picture that is written."""
    folder.mkdir(parents=True)
    lines = []
    for example in examples:
        changed(load_image(example.image)).save(folder / example.name)
        lines.append(json.dumps({"file_name": example.name, "text": str(example.prompts[0])}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def wanted() -> list[tuple]:
    """The monsters of data/unseen, and what each does."""
    _, unknown = monsters()
    return [(unknown[k], list(ACTIONS)[k % len(ACTIONS)]) for k in range(UNSEEN)]


def write_data() -> None:
    """Two sets to learn from, and one of monsters that are in no training set."""
    _, examples = read_examples(data_folder(None))
    for name, count in MANY.items():
        if not Path("data", name).exists():
            chosen = data_order(len(examples), count, seed=0, rank=0, world=1, step=0)
            grey = name == "grey"
            write_folder(
                Path("data", name),
                [examples[k] for k in chosen.tolist()],
                lambda image, grey=grey: image.convert("L").convert("RGB") if grey else image,
            )
    unseen = Path("data/unseen")
    unseen.mkdir(exist_ok=True)
    captions, sketches = [], []
    for k, (monster, action) in enumerate(wanted()):
        file = unseen / f"{k:04d}.png"
        draw(monster, action, Random(f"unseen {k}")).save(file)
        text = f"{describe(monster, Random(f'unseen {k}'))} {ACTIONS[action]}".strip()
        captions.append(text)
        sketches.append(f"{file} | {text}")
    Path("data/captions.txt").write_text("\n".join(captions) + "\n")
    Path("data/sketches.txt").write_text("\n".join(sketches) + "\n")


def trainings(base: str, trial: bool = False) -> dict[str, list[str]]:
    """run -> options of train.py."""
    cut = ["--max-steps", "3"] if trial else []
    return {name: [*shlex.split(line.format(base=base)), *cut] for name, line in TRAIN.items()}


def train_all(base: str, trial: bool) -> None:
    """Train the runs that are not there yet, and go on with one that was interrupted."""
    for name, words in trainings(base, trial).items():
        run, steps = Path("runs", name), vars(train_parser().parse_args(words))["max_steps"]
        if (run / f"checkpoints/step-{steps:07d}").is_dir():
            continue
        words = ["--resume"] if (run / "checkpoints").is_dir() else words
        words = [*words, "--out", str(run)]
        print("python train.py", shlex.join(words), flush=True)
        train.train(vars(train_parser().parse_args(words)))


def count(base: str) -> None:
    """Print what the trainings cost: the difference of two short ones, per step."""
    for name, words in trainings(base).items():
        given = vars(train_parser().parse_args(words))
        found = []
        for steps in (1, 1, 3):  # the first fills the latent cache
            with tempfile.TemporaryDirectory() as folder:
                few = {**given, "max_steps": steps, "out": f"{folder}/run"}
                with FlopCounterMode(display=False) as counter:
                    train.train(few)
            found.append(counter.get_total_flops() / 1e12)
        step = (found[2] - found[1]) / 2
        print(f"{name:8} {step:.4f} TFLOP a step, {step * given['max_steps']:.1f} in all")


def draw_all(base: str, trial: bool) -> None:
    """Draw data/unseen in four ways."""
    for name, (run, prompts) in DRAW.items():
        words = ["--run", run.format(base=base), *shlex.split(prompts)]
        words += ["--steps", "2" if trial else "25"]
        words += ["--out", f"samples/{name}"]
        print("python sample.py", shlex.join(words), flush=True)
        sample.draw(sample.SampleOptions(**vars(sample.parser().parse_args(words))))


def pictures(folder: str) -> list[Image.Image]:
    """The pictures of a folder, in the order of their names."""
    return [load_image(file) for file in sorted(Path(folder).glob("*.png"))]


def batch(images: list[Image.Image]) -> torch.Tensor:
    """(b, 3, h, w) in [-1, 1]."""
    return torch.stack([from_bytes(to_bytes(image)) for image in images])


def through_vae(base: str, images: list[Image.Image]) -> list[Image.Image]:
    """What the autoencoder of a run keeps of pictures: more, no run can draw."""
    folder = find_checkpoint(base)
    vae = load_frozen(read_config(folder), pick_device("auto"), folder).vae
    with torch.inference_mode():
        return [to_pil(image) for image in vae.decode(vae.encode(batch(images)).mean)]


def small(image: Image.Image) -> Image.Image:
    """The small picture of a large one, as the task makes it."""
    return resize(image, (image.height // FACTOR, image.width // FACTOR))


def bicubic(image: Image.Image) -> Image.Image:
    """The small picture of a large one, enlarged again."""
    return resize(small(image), (image.height, image.width))


def edges(images: list[Image.Image]) -> torch.Tensor:
    """Where the outlines are, (b, 1, h, w) of 0 and 1."""
    found = [to_bytes(outline(image).convert("RGB"))[:1] for image in images]
    return (torch.stack(found) >= EDGE).float()


def agreement(drawn: list[Image.Image], asked: list[Image.Image]) -> float:
    """F1 of outlines: the pixels of each that have one of the other within a pixel of them."""
    ours, theirs = edges(drawn), edges(asked)
    near_ours, near_theirs = (F.max_pool2d(e, 3, stride=1, padding=1) for e in (ours, theirs))
    precision = (ours * near_theirs).sum() / ours.sum()
    recall = (theirs * near_ours).sum() / theirs.sum()
    return (2 * precision * recall / (precision + recall)).item()


def score(base: str) -> None:
    """Print how well each run does what it learned."""
    originals = pictures("data/unseen")
    kept = through_vae(base, originals)
    drawn = {name: pictures(f"samples/{name}") for name in DRAW}
    print("colour: mean difference of the brightest and the darkest channel, 0 to 255")
    for name in ("base", "grey"):
        pixels = torch.stack([to_bytes(image) for image in drawn[name]]).float()
        print(f"  {name:12} {(pixels.amax(1) - pixels.amin(1)).mean().item():.1f}")
    print("outlines: F1 with the asked ones, within a pixel; attributes of the caption")
    values = [{**vars(monster), "action": action} for monster, action in wanted()]
    truth = {
        name: [known.index(each[name]) for each in values] for name, known in ATTRIBUTES.items()
    }
    judge = attributes.load_classifier()
    for name, images in {"base": drawn["base"], "control": drawn["control"], "VAE": kept}.items():
        shares = attributes.accuracy(judge.read(batch(images)), truth)
        told = ", ".join(f"{attribute} {share:.2f}" for attribute, share in shares.items())
        print(f"  {name:12} {agreement(images, originals):.3f}; {told}")
    print("super-resolution: PSNR and SSIM with the large pictures; PSNR with the small ones")
    large = [bicubic(image) for image in originals]
    for name, images in {"bicubic": large, "super": drawn["super"], "VAE": kept}.items():
        a, b = batch(images), batch(originals)
        low = psnr(batch([small(i) for i in images]), batch([small(i) for i in originals]))
        print(
            f"  {name:12} {psnr(a, b).mean():.2f} dB, {ssim(a, b).mean():.3f}; {low.mean():.2f} dB"
        )


def figure() -> None:
    """docs/adapting.png: for the first of data/unseen, what is asked for and what is drawn."""
    originals = pictures("data/unseen")[:SHOWN]
    rows = {
        "caption alone": pictures("samples/base"),
        "LoRA": pictures("samples/grey"),
        "outlines": [outline(image).convert("RGB") for image in originals],
        "ControlNet": pictures("samples/control"),
        "16x16 pixels": [resize(small(image), (64, 64), nearest=True) for image in originals],
        "bicubic": [bicubic(image) for image in originals],
        "drawn, 64x64": pictures("samples/super"),
        "the picture": originals,
    }
    left, side, gap, font = 110, 128, 4, ImageFont.load_default(14)
    size = (left + SHOWN * (side + gap), len(rows) * (side + gap))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for y, (words, images) in enumerate(rows.items()):
        top = y * (side + gap)
        pen.text((6, top + side // 2 - 8), words, fill="black", font=font)
        for x, image in enumerate(images[:SHOWN]):
            large = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(large, (left + x * (side + gap), top))
    sheet.quantize(128).save(DOCS / "adapting.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the run to adapt")
    parts = ["data", "count", "train", "draw", "score", "figure"]
    parser.add_argument("part", nargs="?", choices=parts, help="default: all of them")
    parser.add_argument("--trial", action="store_true", help="train three steps, draw in two")
    options = parser.parse_args()
    asked = parts if options.part is None else [options.part]
    work = {
        "data": write_data,
        "count": lambda: count(options.base),
        "train": lambda: train_all(options.base, options.trial),
        "draw": lambda: draw_all(options.base, options.trial),
        "score": lambda: score(options.base),
        "figure": figure,
    }
    for part in asked:
        work[part]()


if __name__ == "__main__":
    main()
