"""What a trained run of the toy set learns besides: the runs, figures and picture of adapting.md.

    python docs/adapting.py runs/toy-1            # all of the below, one after the other
    python docs/adapting.py runs/toy-1 data       # data/grey, data/some, data/unseen
    python docs/adapting.py runs/toy-1 count      # TFLOP of the trainings, by torch's counter
    python docs/adapting.py runs/toy-1 train      # runs/grey, runs/control and runs/super
    python docs/adapting.py runs/toy-1 draw       # samples/base, grey, control, super; 3 seeds each
    python docs/adapting.py runs/toy-1 score      # mean and deviation over the seeds: adapting.json
    python docs/adapting.py runs/toy-1 figure     # docs/adapting.png, of the first seed

What is there already is left as it is, and an interrupted training goes on. data/unseen holds
monsters of the test captions, which no run has seen. train and draw print their commands. --trial
does all of it in small, to be tried in a folder of its own. adapting_iclevr.py does the same with
a run of i-CLEVR, and takes from here what both share; tables.py writes the tables.
"""

import argparse
import json
import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch.utils.flop_counter import FlopCounterMode
from written import keep, spread

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
RESULTS = DOCS / "adapting.json"
MANY = {"grey": 200, "some": 1000}  # pictures to learn from
UNSEEN, SHOWN = 64, 6  # pictures to score, and those of them in the figure
SEEDS = (0, 1, 2)  # of the noise that pictures are drawn from
FACTOR = 4
EDGE = 64  # from where on the gradient of a pixel, 0 to 255, counts as an outline
PARTS = ["data", "count", "train", "draw", "score", "figure"]
TRAIN = {  # run -> options of train.py
    "grey": "--from {base} --lora 4 --data data/{prefix}grey --max-steps 200 --batch-size 16",
    "control": "--from {base} --controlnet --task {task} --data data/{prefix}some "
    "--max-steps 500 --batch-size 16",
    "super": "--task super-resolution --data data/{prefix}some --vae tiny --optimizer muon "
    "--max-steps 500 --batch-size 16",
}
DRAW = {  # folder in samples -> run, prompts
    "base": ("{base}", "data/{prefix}captions.txt"),
    "grey": ("runs/{prefix}grey", "data/{prefix}captions.txt"),
    "control": ("runs/{prefix}control", "data/{prefix}sketches.txt"),
    "super": ("runs/{prefix}super", "data/{prefix}unseen"),
}

# ---- runs, and what they draw


@dataclass(frozen=True)
class Plan:
    """The runs that adapt a base or stand beside it, and what they draw.

    prefix: of the names of their folders in data, runs and samples
    task:   --task of the ControlNet
    trial:  a sixteenth of the pictures, trainings of three steps, drawings of two
    train, draw: the trainings and the drawings, as above
    """

    base: str
    prefix: str = ""
    task: str = "outline"
    trial: bool = False
    train: Mapping[str, str] = field(default_factory=TRAIN.copy)
    draw: Mapping[str, tuple[str, str]] = field(default_factory=DRAW.copy)

    def filled(self, text: str) -> str:
        """A line of TRAIN or DRAW."""
        return text.format(base=self.base, prefix=self.prefix, task=self.task)

    def few(self, count: int) -> int:
        """So many pictures, or those of a trial."""
        return max(4, count // 16) if self.trial else count

    def trainings(self) -> dict[str, list[str]]:
        """run -> options of train.py."""
        cut = ["--max-steps", "3"] if self.trial else []
        return {name: [*shlex.split(self.filled(line)), *cut] for name, line in self.train.items()}

    def train_all(self) -> None:
        """Train the runs that are not there yet, and go on with one that was interrupted."""
        for name, words in self.trainings().items():
            run = Path(f"runs/{self.prefix}{name}")
            steps = vars(train_parser().parse_args(words))["max_steps"]
            if (run / f"checkpoints/step-{steps:07d}").is_dir():
                continue
            words = ["--resume"] if (run / "checkpoints").is_dir() else words
            words = [*words, "--out", str(run)]
            print("python train.py", shlex.join(words), flush=True)
            train.train(vars(train_parser().parse_args(words)))

    def count(self) -> None:
        """Print what the trainings cost: the difference of two short ones, per step."""
        for name, words in self.trainings().items():
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

    def draw_all(self) -> None:
        """Draw the unseen pictures in all ways, with each seed."""
        for name, (run, prompts) in self.draw.items():
            for seed in SEEDS:
                words = ["--run", self.filled(run), "--prompts", self.filled(prompts)]
                words += ["--steps", "2" if self.trial else "25", "--seed", str(seed)]
                words += ["--out", f"samples/{self.prefix}{name}/{seed}"]
                print("python sample.py", shlex.join(words), flush=True)
                sample.draw(sample.SampleOptions(**vars(sample.parser().parse_args(words))))

    def drawn(self, name: str) -> list[list[Image.Image]]:
        """What a run has drawn, with each seed."""
        return [pictures(f"samples/{self.prefix}{name}/{seed}") for seed in SEEDS]

    @property
    def unseen(self) -> Path:
        """The folder of the pictures that no run has seen which adapts the base."""
        return Path(f"data/{self.prefix}unseen")

    def through_vae(self, images: list[Image.Image]) -> list[Image.Image]:
        """What the autoencoder of the base keeps of pictures: more, no run can draw."""
        folder = find_checkpoint(self.base)
        vae = load_frozen(read_config(folder), pick_device("auto"), folder).vae
        with torch.inference_mode():
            return [to_pil(image) for image in vae.decode(vae.encode(batch(images)).mean)]

    def figure(self, file: Path) -> None:
        """For the first of the unseen pictures, what is asked for and what is drawn."""
        originals = pictures(self.unseen)[:SHOWN]
        rows = {
            "prompt alone": self.drawn("base")[0],
            "LoRA": self.drawn("grey")[0],
            "outlines": [outline(image).convert("RGB") for image in originals],
            "ControlNet": self.drawn("control")[0],
            "16x16 pixels": [resize(small(image), (64, 64), nearest=True) for image in originals],
            "bicubic": [bicubic(image) for image in originals],
            "drawn, 64x64": self.drawn("super")[0],
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
        file = Path(file.name) if self.trial else file
        sheet.save(file, optimize=True)  # with a palette, small things would lose their colours

    def rows(
        self,
        table: str,
        told: str,
        score: Callable[[list[Image.Image]], dict[str, float]],
        **seeds: list[list[Image.Image]],
    ) -> None:
        """Print and keep a table: what a score says of the pictures of each seed.

        told: what is scored; seeds: for each row, the pictures of each seed
        """
        print(f"{table}: {told}")
        file = Path(RESULTS.name) if self.trial else RESULTS
        for name, drawn in seeds.items():
            cells = row(name.replace("_", " "), drawn, score)
            on = "i-CLEVR" if self.prefix else "toy set"
            keep(file, cells, on=on, table=table, row=name.replace("_", " "))

    def work(self, part: str | None, own: dict[str, Callable[[], None]]) -> None:
        """Do one of the PARTS, or all; own: those that need to know what the pictures show."""
        work = {"count": self.count, "train": self.train_all, "draw": self.draw_all, **own}
        for name in PARTS if part is None else [part]:
            work[name]()


def options_of(description: str) -> argparse.ArgumentParser:
    """The options that all such scripts have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("base", help="the run to adapt")
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: all of them")
    parser.add_argument("--trial", action="store_true", help="all of it in small")
    return parser


# ---- pictures, and how they are scored


def pictures(folder: str | Path) -> list[Image.Image]:
    """The pictures of a folder, in the order of their names."""
    return [load_image(file) for file in sorted(Path(folder).glob("*.png"))]


def batch(images: list[Image.Image]) -> torch.Tensor:
    """(b, 3, h, w) in [-1, 1]."""
    return torch.stack([from_bytes(to_bytes(image)) for image in images])


def grey(image: Image.Image) -> Image.Image:
    """A picture without its colours."""
    return image.convert("L").convert("RGB")


def small(image: Image.Image) -> Image.Image:
    """The small picture of a large one, as the task makes it."""
    return resize(image, (image.height // FACTOR, image.width // FACTOR))


def bicubic(image: Image.Image) -> Image.Image:
    """The small picture of a large one, enlarged again."""
    return resize(small(image), (image.height, image.width))


def edges(images: list[Image.Image], edge: int) -> torch.Tensor:
    """Where the outlines are, (b, 1, h, w) of 0 and 1."""
    found = [to_bytes(outline(image).convert("RGB"))[:1] for image in images]
    return (torch.stack(found) >= edge).float()


def agreement(drawn: list[Image.Image], asked: list[Image.Image], edge: int = EDGE) -> float:
    """F1 of outlines: the pixels of each that have one of the other within a pixel of them."""
    ours, theirs = edges(drawn, edge), edges(asked, edge)
    near_ours, near_theirs = (F.max_pool2d(e, 3, stride=1, padding=1) for e in (ours, theirs))
    precision = (ours * near_theirs).sum() / ours.sum()
    recall = (theirs * near_ours).sum() / theirs.sum()
    return (2 * precision * recall / (precision + recall)).item()


def colour(images: list[Image.Image]) -> float:
    """The mean difference of the brightest and the darkest channel of a pixel, 0 to 255."""
    pixels = torch.stack([to_bytes(image) for image in images]).float()
    return (pixels.amax(1) - pixels.amin(1)).mean().item()


def likeness(images: list[Image.Image], originals: list[Image.Image]) -> dict[str, float]:
    """How near pictures are to the large ones, in dB and SSIM, and to the small ones, in dB."""
    a, b = batch(images), batch(originals)
    low = psnr(batch([small(i) for i in images]), batch([small(i) for i in originals]))
    return {
        "PSNR": psnr(a, b).mean().item(),
        "SSIM": ssim(a, b).mean().item(),
        "PSNR, small again": low.mean().item(),
    }


def row(
    name: str,
    seeds: list[list[Image.Image]],
    score: Callable[[list[Image.Image]], dict[str, float]],
) -> dict[str, str]:
    """What a score says of the pictures of each seed: its mean, and its deviation. Also printed."""
    found = [score(images) for images in seeds]
    cells = {key: spread([each[key] for each in found]) for key in found[0]}
    told = "; ".join(f"{key} {cell}" for key, cell in cells.items())
    print(f"  {name:12} {told}", flush=True)
    return cells


# ---- the toy set


def write_folder(folder: Path, examples, changed) -> None:
    """An image folder with captions; changed(image) is the picture that is written."""
    folder.mkdir(parents=True)
    lines = []
    for example in examples:
        changed(load_image(example.image)).save(folder / example.name)
        lines.append(json.dumps({"file_name": example.name, "text": str(example.prompts[0])}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def wanted(count: int) -> list[tuple]:
    """The monsters of data/unseen, and what each does."""
    _, unknown = monsters()
    return [(unknown[k], list(ACTIONS)[k % len(ACTIONS)]) for k in range(count)]


def write_data(plan: Plan) -> None:
    """Two sets to learn from, and one of monsters that are in no training set."""
    _, examples = read_examples(data_folder(None))
    for name, count in MANY.items():
        if not Path("data", name).exists():
            order = data_order(len(examples), plan.few(count), seed=0, rank=0, world=1, step=0)
            chosen = [examples[k] for k in order.tolist()]
            write_folder(Path("data", name), chosen, grey if name == "grey" else Image.Image.copy)
    plan.unseen.mkdir(exist_ok=True)
    captions, sketches = [], []
    for k, (monster, action) in enumerate(wanted(plan.few(UNSEEN))):
        file = plan.unseen / f"{k:04d}.png"
        draw(monster, action, Random(f"unseen {k}")).save(file)
        text = f"{describe(monster, Random(f'unseen {k}'))} {ACTIONS[action]}".strip()
        captions.append(text)
        sketches.append(f"{file} | {text}")
    Path("data/captions.txt").write_text("\n".join(captions) + "\n")
    Path("data/sketches.txt").write_text("\n".join(sketches) + "\n")


def score(plan: Plan) -> None:
    """Print how well each run does what it learned."""
    originals = pictures(plan.unseen)
    kept = plan.through_vae(originals)
    values = [{**vars(monster), "action": action} for monster, action in wanted(len(originals))]
    truth = {
        name: [known.index(each[name]) for each in values] for name, known in ATTRIBUTES.items()
    }
    judge = attributes.load_classifier()

    def followed(images: list[Image.Image]) -> dict[str, float]:
        read = attributes.accuracy(judge.read(batch(images)), truth)
        return {"F1": agreement(images, originals), **read}

    def changed(images: list[Image.Image]) -> dict[str, float]:
        return {"channels": colour(images), **followed(images)}

    base, learned, control, drawn = (plan.drawn(name) for name in DRAW)
    told = "the difference of the brightest and the darkest channel, 0 to 255; attributes"
    plan.rows("LoRA", told, changed, base=base, grey=learned)
    told = "F1 with the asked ones, within a pixel; attributes of the caption"
    plan.rows("outlines", told, followed, base=base, control=control, VAE=[kept])
    large = [bicubic(image) for image in originals]
    plan.rows(
        "super-resolution",
        "with the large pictures; with the small ones",
        lambda images: likeness(images, originals),
        **{"bicubic": [large], "super": drawn, "VAE": [kept]},
    )


def main() -> None:
    options = options_of(__doc__).parse_args()
    plan = Plan(options.base, trial=options.trial)
    own = {
        "data": lambda: write_data(plan),
        "score": lambda: score(plan),
        "figure": lambda: plan.figure(DOCS / "adapting.png"),
    }
    plan.work(options.part, own)


if __name__ == "__main__":
    main()
