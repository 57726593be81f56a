"""The table of all methods in methods.md, of what was measured: python docs/in_brief.py

methods.py keeps its results in methods.json, editing_scores.py in editing.json, adapting.py and
adapting_iclevr.py in adapting.json. Cells are means of three seeds of the noise.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from tables import DOCS, ICLEVR, TOY, Measured, shown, table
from written import put

KEYS = {TOY: ("shape", "eyes"), ICLEVR: ("test", "new_test")}
TRAINED = {  # what a training was called in methods.json -> how it is called here, its options
    "uniform": ("t drawn evenly", "train.py --schedule cosine --t-sampling uniform"),
    "logit-normal": (
        "logit-normal t",
        "train.py --schedule cosine --t-sampling logit-normal",
    ),
    "flow": ("the straight path", "train.py --schedule flow --prediction flow"),
}
EDITED = [
    (
        "[image to image](editing.md#image-to-image), strength .6",
        "15 of 25 steps",
        "another prompt",
        "image to image, strength 0.6",
        "shape",
        "sample.py --init IMAGE --strength 0.6 --prompt TEXT",
    ),
    (
        "[inversion](editing.md#inversion), then another prompt",
        "50 steps for 25",
        "another prompt",
        "inversion, strength 1.0",
        "shape",
        "sample.py --init IMAGE --invert TEXT --prompt TEXT",
    ),
    (
        "[inpainting](editing.md#inpainting) of a half",
        "46 steps",
        "the lower half",
        "DDPM, 46 steps",
        "eyes",
        "sample.py --init IMAGE --mask MASK --solver ddpm --prompt TEXT",
    ),
    (
        "the same, going back and forth",
        "46 steps",
        "the lower half",
        "DDPM, 10 steps, each 5 times",
        "eyes",
        "sample.py --init IMAGE --mask MASK --solver ddpm --resample 5 --prompt TEXT",
    ),
    (
        "[halfway between two noises](editing.md#halfway), on the sphere",
        "nothing",
        "halfway",
        "two noises, on the sphere",
        "eyes",
        "sample.py --interpolate 3 --to-seed 1 --prompt TEXT",
    ),
    (
        "the same on a straight line",
        "nothing",
        "halfway",
        "two noises, on a straight line",
        "eyes",
        "none, it is here for comparison",
    ),
    (
        "halfway between two prompts, the first",
        "1 row more",
        "halfway",
        "two prompts, what the first asks for",
        "shape",
        "sample.py --interpolate 3 --prompt TEXT --prompt TEXT",
    ),
    (
        "[one prompt](editing.md#several-prompts) that says everything",
        "nothing",
        "composition",
        "one prompt",
        "shape",
        "sample.py --prompt TEXT",
    ),
    (
        "several prompts that say it together",
        "1 row more for each",
        "composition",
        "2 prompts/3 prompts",
        "shape",
        "sample.py --prompt TEXT --and TEXT",
    ),
    (
        "[anagram](editing.md#anagrams-and-hybrids), upright",
        "twice the calls",
        "two in one",
        "anagram, upright",
        "shape",
        "docs/examples/anagram.py RUN TEXT TEXT",
    ),
    ("anagram, upside down", "the same", "two in one", "anagram, upside down", "shape", "the same"),
    (
        "hybrid, from afar",
        "twice the calls",
        "two in one",
        "hybrid, from afar",
        "shape",
        "docs/examples/hybrid.py RUN TEXT TEXT",
    ),
    ("hybrid, from near", "the same", "two in one", "hybrid, from near", "shape", "the same"),
]
"""Method, cost, table and row in editing.json, what is shown of the toy set, command."""
ADAPTED = [
    (
        "[LoRA](adapting.md#lora) of grey pictures",
        "200 steps of 16",
        "LoRA",
        "base",
        "grey",
        "channels",
        "colour",
        "train.py --from RUN --lora 4 --data grey",
    ),
    (
        "[ControlNet](adapting.md#controlnet)",
        "500 steps of 16",
        "outlines",
        "base",
        "control",
        "F1",
        "F1",
        "train.py --from RUN --controlnet --task outline",
    ),
    (
        "[super-resolution](adapting.md#super-resolution)",
        "500 steps of 16",
        "super-resolution",
        "bicubic",
        "super",
        "PSNR",
        "from bicubic",
        "train.py --task super-resolution",
    ),
]
"""Method, cost, table in adapting.json, rows without and with it, what is shown and its name."""


def average(cell: str) -> str:
    """Without the deviation."""
    return cell.partition(" ± ")[0]


def drawn(rows: list[dict]) -> Iterator[list[str]]:
    """Ways of drawing, and trainings that differ in one thing."""
    found = {(row["on"], row["method"]): row for row in rows}

    def scores(on: str, row: dict) -> str:
        means = (mean(seed[key] for seed in row["seeds"].values()) for key in KEYS[on])
        return ", ".join(f"{key} {m:.3f}" for key, m in zip(KEYS[on], means, strict=True))

    for on, method in found:
        if on == TOY:
            row, scene = found[TOY, method], found[ICLEVR, method]
            command = row["command"].replace("runs/toy-1/checkpoints/step-0000750", "EARLIER")
            cells = [scores(TOY, row), scores(ICLEVR, scene), f"`{command}`"]
            yield [method, f"{row['gflop']:.0f} GFLOP a picture", *cells]
    method = "UniPC, 8 steps"
    for name, (called, command) in TRAINED.items():
        sets = ((on, found[f"{on}, {name}", method]) for on in (TOY, ICLEVR))
        cells = [scores(on, row) for on, row in sets]
        yield [f"[{called}](#which-t-and-which-path)", "nothing", *cells, f"`{command}`"]


def edited(found: Measured) -> Iterator[list[str]]:
    """What editing costs and brings, of what was measured on both sets."""
    for method, cost, name, rows, key, command in EDITED:
        toy, *scene = rows.split("/")
        told = average(found.cell(TOY, name, toy, key))
        labels = average(found.cell(ICLEVR, name, (scene or [toy])[0], "labels"))
        if not told or not labels:
            continue
        typed = command if command.startswith(("none", "the")) else f"`{command}`"
        yield [method, cost, f"{key} {told}", f"labels {labels}", typed]


def adapted(found: Measured) -> Iterator[list[str]]:
    """What adapting costs and brings."""
    for method, cost, name, without, with_it, key, called, command in ADAPTED:
        cells = []
        for on in (TOY, ICLEVR):
            before, after = (
                average(shown(found.cell(on, name, row, key), key)) for row in (without, with_it)
            )
            cells.append(f"{called} {before} to {after}")
        yield [method, cost, *cells, f"`{command}`"]


def write(docs: Path = DOCS) -> None:
    """Put the table into the page of a folder."""
    rows = json.loads((DOCS / "methods.json").read_text(encoding="utf-8"))
    editing, learned = Measured.of(DOCS / "editing.json"), Measured.of(DOCS / "adapting.json")
    head = ["method", "what it costs", "on the toy set", "on i-CLEVR", "command"]
    lines = [*drawn(rows), *edited(editing), *adapted(learned)]
    put(docs / "methods.md", "in brief", table(head, lines))


if __name__ == "__main__":
    write()
