"""What each method costs and brings: the table of methods.md, measured on a trained run.

    python docs/methods.py measure runs/toy-1 --prompts data/toy/test.json --name "toy set"
    python docs/methods.py measure runs/iclevr-1 --prompts iclevr/test.json iclevr/new_test.json \\
           --evaluator judge --name i-CLEVR
    python docs/methods.py measure runs/toy-2 --tuned ...         a run of train.py --consistency
    python docs/methods.py measure RUN --name "after 300 steps" --only "UniPC, 8 steps"
    python docs/methods.py measure runs/toy-1 --name "toy set, the default run" ...
    python docs/methods.py write

Each way of drawing draws the prompts with three seeds; a judge that the network has never met says
which share of what was asked for is there. `measure` adds to methods.json as it goes, and leaves
out what it finds there, so that it can be stopped; `write` makes the tables of methods.md, where
the default run has one of its own. A run needs several checkpoints for autoguidance, --post-hoc-ema
for averages, and a fitted grid:

    python -m tinyldm grid runs/toy-1 --solver unipc --steps 8
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode
from written import kept, put, spread

from tinyldm.device import pick_device
from tinyldm.sampling.drawing import Painter, encode_prompts
from tinyldm.sampling.guide import load_guide
from tinyldm.sampling.job import sample_images, with_grid
from tinyldm.sampling.settings import SampleOptions
from tinyldm.scores.evaluation import evaluate
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import checkpoints, find_checkpoint, read_config, task_of
from tinyldm.training.frozen_models import load_frozen

PAGE = Path(__file__).with_suffix(".md")
RESULTS = Path(__file__).with_suffix(".json")
SEEDS = (0, 1, 2)
DEFAULT = "toy set, the default run"  # what a table of its own is about
EARLY = "EARLY"  # stands for a checkpoint after a third of the run
WAYS = {  # method -> options of sample.py
    "DPM-Solver++, 50 steps": {"steps": 50},
    "DPM-Solver++, 25 steps": {"steps": 25},
    "DPM-Solver++, 8 steps": {"steps": 8},
    "UniPC, 8 steps": {"steps": 8, "solver": "unipc"},
    "UniPC, 8 steps on the fitted grid": {"steps": 8, "solver": "unipc", "spacing": "fitted"},
    "UniPC, 25 even steps in the log-SNR": {"steps": 25, "solver": "unipc", "spacing": "logsnr"},
    "Heun, 13 steps": {"steps": 13, "solver": "heun"},
    "guidance within an interval": {"steps": 25, "guidance_interval": [0.3, 5.0]},
    "autoguidance": {"steps": 25, "guide": EARLY, "guide_scale": 2.0},
    "autoguidance and guidance": {
        **{"steps": 25, "guide": EARLY, "guide_scale": 1.5, "guidance": 2.0}
    },
    "average of length 0.05": {"steps": 25, "ema_length": 0.05},
    "average of length 0.1": {"steps": 25, "ema_length": 0.1},
    "average of length 0.15": {"steps": 25, "ema_length": 0.15},
}
TUNED = {
    "consistency, 1 step": {"steps": 1, "solver": "consistency"},
    "consistency, 2 steps": {"steps": 2, "solver": "consistency"},
    "consistency, 4 steps": {"steps": 4, "solver": "consistency"},
}


def way_of(run: Path, options: dict) -> tuple[object, str]:
    """How to draw, and the options as one would type them."""
    config = read_config(find_checkpoint(run))
    known = checkpoints(run)
    given = {**options, "run": str(run)}
    typed = []
    for name, value in options.items():
        if value == EARLY:
            value = given[name] = str(known[(len(known) - 1) // 3])
        values = value if isinstance(value, list) else [value]
        typed.append(" ".join([f"--{name.replace('_', '-')}", *(f"{each}" for each in values)]))
    how = SampleOptions(**given).drawing(task_of(config), config["settings"])
    return how, " ".join(typed)


def cost(run: Path, how, prompt) -> float:
    """GFLOP of one picture, its decoding included, by torch's counter."""
    device = pick_device("auto")
    checkpoint = load_averaged(run, device, how.ema_length)
    how = with_grid(checkpoint, how)
    guide = load_guide(checkpoint, how, device)
    models = load_frozen(checkpoint.config, device, checkpoint.path)
    task = task_of(checkpoint.config)
    painter = Painter.of(checkpoint, models.vae, task, how, device=device, guide=guide)
    condition = encode_prompts(models.encoder, [prompt])
    with FlopCounterMode(display=False) as counter:
        painter.draw(condition, [0])
    return counter.get_total_flops() / 1e9


def judged(run: Path, how, options, seed: int) -> dict[str, float]:
    """The scores of one seed: of each attribute, or of each file of prompts."""
    config = read_config(find_checkpoint(run))
    scores: dict[str, float] = {}
    for prompts in options.prompts:
        with tempfile.TemporaryDirectory() as folder:
            file = first_of(prompts, options.count, Path(folder))
            requests = task_of(config).requests(file)
            out = sample_images(run, requests, Path(folder) / "drawn", how=how, seed=seed)
            found = evaluate(
                out,
                file,
                metrics=["evaluator" if options.evaluator else "toy attributes"],
                evaluator=options.evaluator,
            )
        if options.evaluator:
            scores[file.stem] = found["evaluator"]["value"]
        else:
            scores |= found["toy attributes"]["generated"]
    return scores


def first_of(prompts: Path, count: int, folder: Path) -> Path:
    """A file of the first prompts of a file, with the attributes beside it, if there are any."""
    content = json.loads(prompts.read_text())
    first = content[:count] if isinstance(content, list) else dict(list(content.items())[:count])
    (folder / prompts.name).write_text(json.dumps(first))
    attributes = prompts.parent / "attributes.json"
    if attributes.exists():
        shutil.copy(attributes, folder)
    return folder / prompts.name


def measure(options) -> None:
    """Measure each way of drawing that methods.json lacks for this name."""
    config = read_config(find_checkpoint(options.run))
    first = task_of(config).requests(options.prompts[0])[0].prompt
    for method, given in (TUNED if options.tuned else WAYS).items():
        if options.only not in (None, method):
            continue
        if any(row["on"] == options.name and row["method"] == method for row in kept(RESULTS)):
            continue
        how, typed = way_of(options.run, given)
        row = {"on": options.name, "method": method, "command": f"sample.py {typed}".strip()}
        row["gflop"] = cost(options.run, how, first)
        row["seeds"] = {seed: judged(options.run, how, options, seed) for seed in SEEDS}
        RESULTS.write_text(json.dumps([*kept(RESULTS), row], indent=1) + "\n")
        print(line(row), flush=True)


def line(row: dict) -> str:
    """A row of the table: method, cost, scores (mean and deviation over seeds), command."""
    cells = []
    for name in next(iter(row["seeds"].values())):
        cells.append(f"{name} {spread([scores[name] for scores in row['seeds'].values()])}")
    return f"| {row['method']} | {row['gflop']:.0f} | {', '.join(cells)} | `{row['command']}` |"


def write() -> None:
    """Put the tables into methods.md, one for each set of pictures."""
    names = dict.fromkeys(row["on"] for row in kept(RESULTS))
    put(PAGE, "default run", table(DEFAULT))
    put(PAGE, "methods", "\n".join(f"**{n}**\n\n{table(n)}" for n in names if n != DEFAULT))


def table(name: str) -> str:
    """All that has been measured under a name."""
    head = ["| method | GFLOP a picture | scores | command |", "| --- | --- | --- | --- |"]
    rows = sorted((row for row in kept(RESULTS) if row["on"] == name), key=place)
    return "".join(f"{each}\n" for each in [*head, *map(line, rows)])


def place(row: dict) -> int:
    """Of a method among all, in the order in which they are listed above."""
    return list(WAYS | TUNED).index(row["method"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--prompts", nargs="+", type=Path)
    parser.add_argument("--evaluator", type=Path)
    parser.add_argument("--name", default="toy set")
    parser.add_argument("--count", type=int, default=100, help="prompts of each file")
    parser.add_argument("--tuned", action="store_true", help="the run is a consistency run")
    parser.add_argument("--only", metavar="METHOD", help="this one alone")
    options = parser.parse_args()
    if options.what == "write":
        write()
    else:
        measure(options)


if __name__ == "__main__":
    main()
