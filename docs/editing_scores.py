"""What editing brings: the tables of editing.md, for a run of the toy set or of i-CLEVR.

    python docs/editing_scores.py runs/toy-1
    python docs/editing_scores.py runs/iclevr-1 --data iclevr --evaluator judge
    python docs/tables.py                             # writes the tables of editing.md

Rows are printed, and kept in editing.json. Toy monsters are those of the test captions, which no
run has seen; scenes of i-CLEVR are the first of train.json that show three objects. A judge says
which share of what is asked for can be seen, as the mean and the deviation of three seeds of the
noise; an inversion has no noise. PSNR is that with what the autoencoder keeps of the picture that
was edited.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean

import torch
from examples.anagram import Anagram
from examples.hybrid import Hybrid, from_afar
from torch import Tensor
from written import keep, spread

from tinyldm.condition import Condition
from tinyldm.data.examples import Prompt
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes, to_pil
from tinyldm.device import pick_device
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.sampler import sample
from tinyldm.methods.composition import Composed
from tinyldm.methods.editing import Inpainting, begin, invert, remaining, resample
from tinyldm.methods.interpolation import slerp
from tinyldm.sampling.drawing import encode_prompts
from tinyldm.scores import attributes
from tinyldm.scores.evaluator import Evaluator
from tinyldm.scores.similarity import psnr
from tinyldm.tasks.base import read_examples
from tinyldm.tasks.labels import Labels
from tinyldm.toy.monsters import ACTIONS, ATTRIBUTES, describe, draw, monsters
from tinyldm.training.checkpoint import load_checkpoint
from tinyldm.training.frozen_models import load_frozen

RESULTS = Path(__file__).with_name("editing.json")
SEEDS = (0, 1, 2)
STEPS, GUIDANCE = 25, 3.0
STRENGTHS = (1.0, 0.8, 0.6, 0.4)
PARTS = ("A {c} monster with {f} and {e}.", "Pixel art of a {c} {s} monster.")
FILLED = {  # solver, steps, times: the last two of each solver cost the same
    "DPM-Solver++, 10 steps": (DPMSolver(), 10, 1),
    "DPM-Solver++, 46 steps": (DPMSolver(), 46, 1),
    "DPM-Solver++, 10 steps, each 5 times": (DPMSolver(), 10, 5),
    "DDPM, 46 steps": (DDPM(), 46, 1),
    "DDPM, 10 steps, each 5 times": (DDPM(), 10, 5),
}


class Toys:
    """Monsters that no run has seen.

    pictures: (n, 3, 64, 64) in [-1, 1]
    prompts:  the caption of each
    parts:    for each, captions that say all of it together
    """

    name = "toy set"

    def __init__(self, count: int):
        _, unknown = monsters()
        pictures, self.prompts, self.parts, self.known = [], [], [], {}
        for k, monster in enumerate(unknown[:count]):
            action = list(ACTIONS)[k % len(ACTIONS)]
            pictures.append(from_bytes(to_bytes(draw(monster, action, Random(f"unseen {k}")))))
            told = partial(describe, monster, Random(f"unseen {k}"))
            self.prompts.append(f"{told()} {ACTIONS[action]}".strip())
            self.parts.append(
                [f"{told(template=text)} {ACTIONS[action]}".strip() for text in PARTS]
            )
            self.known[self.prompts[-1]] = {**vars(monster), "action": action}
        self.pictures = torch.stack(pictures)
        self.net = attributes.load_classifier()

    def judge(self, pictures: Tensor, prompts: Sequence[Prompt]) -> dict[str, float]:
        """The share of each attribute that is as the prompts have it."""
        truth = {
            name: [values.index(self.known[prompt][name]) for prompt in prompts]
            for name, values in ATTRIBUTES.items()
        }
        return attributes.accuracy(self.net.read(pictures), truth)


class Scenes:
    """Scenes of three objects, as Toys; the parts are the objects."""

    name = "i-CLEVR"

    def __init__(self, count: int, data: Path, evaluator: Path):
        _, examples = read_examples(data)
        scenes = [e for e in examples if len(Labels.of(e.prompts[0]).names) == 3][:count]
        size = (64, 64)
        self.pictures = torch.stack(
            [from_bytes(to_bytes(resize(load_image(scene.image), size))) for scene in scenes]
        )
        self.prompts = [scene.prompts[0] for scene in scenes]
        self.parts = [[Labels((name,)) for name in Labels.of(p).names] for p in self.prompts]
        self.evaluator = Evaluator.load(evaluator)

    def judge(self, pictures: Tensor, prompts: Sequence[Prompt]) -> dict[str, float]:
        """The assignment's score."""
        evaluator = self.evaluator
        pixels = torch.stack([to_bytes(to_pil(picture)) for picture in pictures])
        truth = evaluator.judge.truth(prompts, evaluator.size, None)
        return {"labels": evaluator.scores(pixels, truth)["top-k"]}


class Editor:
    """A run and what it edits."""

    def __init__(self, run: str, shown: Toys | Scenes):
        self.device = pick_device("auto")
        self.run = load_checkpoint(run, self.device)
        self.models = load_frozen(self.run.config, self.device, run)
        self.shown = shown
        self.guidance = Guidance(GUIDANCE, self.run.null)
        self.table = ""
        latents = self.models.vae.encode(shown.pictures.to(self.device)).mean
        self.x0 = (latents - self.run.mean) / self.run.std
        self.kept = self.decoded(self.x0)

    def decoded(self, x0: Tensor) -> Tensor:
        """Pictures of normalised latents."""
        images = self.models.vae.decode(x0 * self.run.std + self.run.mean)
        return images.clamp(-1, 1).cpu()

    def told(self, prompts: Sequence[Prompt]) -> Condition:
        """The condition of prompts."""
        return encode_prompts(self.models.encoder, prompts)

    def draw(self, condition: Condition, seed: int = 0, *, times: int = 1, **how) -> Tensor:
        """Pictures of a condition; how: as for sample()."""
        count = len(condition)
        how = {"solver": DPMSolver(), "guidance": self.guidance, **how}
        how = {"seeds": range(1000 * seed, 1000 * seed + count), **how}
        how = {"spacing": self.run.schedule.grid(STEPS), **how}
        drawing = sample if times == 1 else partial(resample, times=times)
        x0 = drawing(
            self.run.network,
            (count, *self.x0.shape[1:]),
            self.run.schedule,
            condition=condition,
            prediction=self.run.prediction,
            device=self.device,
            **how,
        )
        return self.decoded(x0)

    def row(
        self,
        name: str,
        drawn: Sequence[Tensor],
        prompts: Sequence[Prompt],
        more: dict[str, str] | None = None,
    ) -> None:
        """Print and keep a row: what the judge finds in the pictures of each seed, then PSNR.

        more: cells between the name and these
        """
        found = [self.shown.judge(pictures, prompts) for pictures in drawn]
        cells = dict(more or {})
        for key in found[0]:
            cells[key] = spread([each[key] for each in found])
        near = mean(psnr(pictures, self.kept).mean().item() for pictures in drawn)
        cells["PSNR"] = "" if near > 100 else f"{near:.1f} dB"
        print(f"| {' | '.join([name, *cells.values()])} |", flush=True)
        keep(RESULTS, cells, on=self.shown.name, table=self.table, row=name)

    def header(self, table: str, *more: str) -> None:
        """Print the head of a table; more: columns between the first and the scores."""
        self.table = table
        cells = [table, *more, *self.shown.judge(self.kept, self.shown.prompts), "PSNR"]
        print(f"\n| {' | '.join(cells)} |\n|{' --- |' * len(cells)}", flush=True)

    @property
    def others(self) -> list[Prompt]:
        """For each picture the prompt of the next one."""
        return [*self.shown.prompts[1:], self.shown.prompts[0]]

    def changed(self) -> None:
        """Another prompt: that of the next picture."""
        own, others = self.shown.prompts, self.others
        condition, grid = self.told(others), self.run.schedule.grid(STEPS)
        self.header("another prompt")
        self.row("the picture as it is", [self.kept], others)
        for strength in STRENGTHS:
            spacing, init = begin(self.x0, grid, strength)
            drawn = [self.draw(condition, seed, spacing=spacing, init=init) for seed in SEEDS]
            self.row(f"image to image, strength {strength}", drawn, others)
        for strength in STRENGTHS[::2]:
            spacing = remaining(grid, strength)
            noise = self.inverted(self.told(own), spacing)
            drawn = [self.draw(condition, spacing=spacing, noise=noise)]
            self.row(f"inversion, strength {strength}", drawn, others)

    def inverted(self, condition: Condition, grid) -> Tensor:
        """The noise of the pictures, given what they show."""
        return invert(
            self.run.network,
            self.x0,
            self.run.schedule,
            grid,
            solver=DPMSolver(),
            condition=condition,
            prediction=self.run.prediction,
        )

    def returned(self) -> None:
        """Inversion, and back with the same prompt."""
        condition = self.told(self.shown.prompts)
        self.header("inversion and back, without guidance")
        for steps in (10, 25, 50, 100):
            grid = self.run.schedule.grid(steps)
            noise = self.inverted(condition, grid)
            drawn = [self.draw(condition, spacing=grid, noise=noise, guidance=None)]
            self.row(f"{steps} steps", drawn, self.shown.prompts)

    def composed(self) -> None:
        """Several prompts that say together what one says."""
        prompts, parts = self.shown.prompts, self.shown.parts
        self.header("composition")
        whole = self.told(prompts)
        self.row("one prompt", [self.draw(whole, seed) for seed in SEEDS], prompts)
        count = len(parts[0])
        told = tuple(self.told([each[k] for each in parts]) for k in range(count))
        both = Composed(told, torch.ones(len(prompts), count))
        guidance = both.guidance(self.guidance, self.device)
        drawn = [self.draw(told[0], seed, guidance=guidance) for seed in SEEDS]
        self.row(f"{count} prompts", drawn, prompts)

    def filled(self) -> None:
        """The lower half, drawn anew with the whole prompt."""
        cells = torch.zeros(1, 1, *self.x0.shape[2:], dtype=torch.bool)
        cells[:, :, self.x0.shape[2] // 2 :] = True
        clip, prompts = Inpainting(self.x0, cells), self.shown.prompts
        condition = self.told(prompts)
        self.header("the lower half", "calls", "seam")
        self.row("the true pictures", [self.kept], prompts, as_cells("", [self.kept]))
        for name, (solver, steps, times) in FILLED.items():
            spacing = self.run.schedule.grid(steps)
            how = {"solver": solver, "spacing": spacing, "times": times, "clip": clip}
            drawn = [self.draw(condition, seed, **how) for seed in SEEDS]
            self.row(name, drawn, prompts, as_cells(f"{(steps - 1) * times + 1}", drawn))

    def between(self) -> None:
        """Halfway between two noises, and between two prompts."""
        own, others = self.shown.prompts, self.others
        first, second = self.told(own), self.told(others)
        half = torch.full((len(own),), 0.5)
        self.header("halfway")
        ways = {"on the sphere": slerp, "on a straight line": torch.lerp}
        for name, way in ways.items():
            drawn = []
            for seed in SEEDS:
                noises = [normal_noise(self.x0.shape, 2 * seed + k) for k in range(2)]
                share = half if way is slerp else half.view(-1, 1, 1, 1)
                drawn.append(self.draw(first, noise=way(*noises, share)))
            self.row(f"two noises, {name}", drawn, own)
        both = Composed((first, second), torch.full((len(own), 2), 0.5))
        guidance = both.guidance(self.guidance, self.device)
        drawn = [self.draw(first, seed, guidance=guidance) for seed in SEEDS]
        self.row("two prompts, what the first asks for", drawn, own)
        self.row("two prompts, what the second asks for", drawn, others)

    def twofold(self) -> None:
        """Two prompts in one picture: an anagram, a hybrid."""
        own, others = self.shown.prompts, self.others
        self.header("two in one")
        drawn = self.pairs(Anagram)
        self.row("anagram, upright", drawn, own)
        turned = [pictures.rot90(2, (-2, -1)) for pictures in drawn]
        self.row("anagram, upside down", turned, others)
        drawn = self.pairs(Hybrid)
        self.row("hybrid, from afar", [smaller(pictures) for pictures in drawn], own)
        self.row("hybrid, from near", drawn, others)
        self.row("the true pictures, from afar", [smaller(self.kept)], own)

    def pairs(self, kind) -> list[Tensor]:
        """For each seed, the pictures of two prompts each; kind: what guides by both."""
        first, second = self.told(self.shown.prompts), self.told(self.others)
        drawn = []
        for k in range(len(first)):
            seeds = [1000 * seed + k for seed in SEEDS]
            guidance = kind(self.guidance, second[k : k + 1])
            drawn.append(self.draw(first[[k] * len(seeds)], seeds=seeds, guidance=guidance))
        return list(torch.stack(drawn, 1))


PARTS_OF_PAGE = {
    "changed": Editor.changed,
    "returned": Editor.returned,
    "composed": Editor.composed,
    "filled": Editor.filled,
    "between": Editor.between,
    "twofold": Editor.twofold,
}


def as_cells(calls: str, drawn: Sequence[Tensor]) -> dict[str, str]:
    """What a row of inpainting says besides its scores."""
    return {"calls": calls, "seam": f"{seam(drawn):.1f}"}


def seam(drawn: Sequence[Tensor]) -> float:
    """The mean difference of the two rows of pixels in the middle, in grey levels."""
    pictures = torch.cat(list(drawn))
    row = pictures.shape[2] // 2
    return 127.5 * (pictures[:, :, row] - pictures[:, :, row - 1]).abs().mean().item()


def normal_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Independent numbers of N(0, 1)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smaller(pictures: Tensor) -> Tensor:
    """What is left of pictures from afar, at their own size."""
    images = [from_afar(to_pil(picture)) for picture in pictures]
    return torch.stack([from_bytes(to_bytes(image)) for image in images])


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, help="the folder of i-CLEVR; none: the toy set")
    parser.add_argument("--evaluator", type=Path, help="the judge of i-CLEVR's scenes")
    parser.add_argument("--count", type=int, default=32, help="pictures (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS_OF_PAGE)
    given = parser.parse_args(argv)
    if given.data is None:
        shown = Toys(given.count)
    elif given.evaluator is None:
        parser.error("--data: expected --evaluator with it")
    else:
        shown = Scenes(given.count, given.data, given.evaluator)
    editor = Editor(given.run, shown)
    for part in PARTS_OF_PAGE if given.only is None else [given.only]:
        PARTS_OF_PAGE[part](editor)


if __name__ == "__main__":
    main()
