"""What a consistency run costs, and what it draws: the figures and the picture of few_steps.md.

    python docs/few_steps.py count                        # TFLOP of a step, by torch's counter
    python docs/few_steps.py draw runs/toy-1 runs/toy-2   # docs/few_steps.png, both runs' pictures
    python docs/few_steps.py score runs/toy-1 runs/toy-2  # attributes of 200 unseen captions

The first run is the teacher, the second the consistency run.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch.utils.flop_counter import FlopCounterMode

from tinyldm.condition import Condition
from tinyldm.data.images import grid
from tinyldm.device import pick_device
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.loss import draw_noise, training_loss
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.methods.consistency import ConsistencyLoss
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing, make_solver
from tinyldm.scores.evaluation import evaluate
from tinyldm.tasks.base import read_requests
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen
from tinyldm.training.network import DataShape, build_network, network_recipe
from tinyldm.training.settings import TrainSettings

TEACHER, TUNED = (50, 8, 4, 2), (4, 2, 1)
SHOWN = 10  # pictures in a row
BATCH, TOKENS = 32, 20


def count() -> None:
    """Print the TFLOP of one step of the toy network, trained and tuned."""
    settings = TrainSettings()
    shape = DataShape(12, (16, 16), token_dim=128)
    network, frozen = (build_network(network_recipe(settings, shape)) for _ in range(2))
    schedule = NoiseSchedule(settings.schedule, shift=settings.shift)
    x0, tokens = torch.randn(BATCH, 12, 16, 16), torch.randn(BATCH, TOKENS, 128)
    condition, null = Condition(tokens=tokens), Condition(tokens=tokens[:1])
    taught = ConsistencyLoss(schedule, teacher=Guidance(3.0, null)(frozen.requires_grad_(False)))
    of_data = ConsistencyLoss(schedule)
    losses = {
        "training": lambda: training_loss(network, x0, condition, schedule),
        "--consistency": lambda: taught(network, draw_noise(x0, schedule), condition, 0.5),
        "--consistency-from data": lambda: of_data(
            network, draw_noise(x0, schedule), condition, 0.5
        ),
    }
    for name, loss in losses.items():
        with FlopCounterMode(display=False) as counter:
            loss().mean().backward()
        print(f"{name:25} {counter.get_total_flops() / 1e12:.4f} TFLOP a step of {BATCH}")


def ways(teacher: str, tuned: str) -> list[tuple[str, str, Drawing]]:
    """(label, run, how) of each row."""
    rows = [(f"teacher, {n} steps", teacher, Drawing(steps=n)) for n in TEACHER]
    solver = make_solver("consistency")
    for n in TUNED:
        how = Drawing(steps=n, solver=solver, guidance=1.0)
        rows.append((f"consistency, {n}", tuned, how))
    return rows


def draw(teacher: str, tuned: str, prompts: str, out: Path) -> None:
    """The same prompts from the same noise, a row for each way to draw them."""
    requests = read_requests(prompts)
    shown = requests[:: len(requests) // SHOWN][:SHOWN]
    device = pick_device("auto")
    page, top = None, 0
    for label, run, how in ways(teacher, tuned):
        checkpoint = load_checkpoint(run, device)
        models = load_frozen(checkpoint.config, device, run)
        task = task_of(checkpoint.config)
        painter = Painter.of(checkpoint, models.vae, task, how, device=device)
        condition = encode_prompts(models.encoder, [request.prompt for request in shown])
        row = grid(painter.draw(condition, [picture_seed(0, k) for k in range(SHOWN)]), SHOWN)
        if page is None:
            size = (row.width + 120, row.height * len(TEACHER + TUNED))
            page = Image.new("RGB", size, "white")
        page.paste(row, (120, top))
        ImageDraw.Draw(page).text((6, top + row.height // 2 - 6), label, fill="black")
        top += row.height
    page.quantize(128).save(out, optimize=True)


def score(teacher: str, tuned: str, prompts: str) -> None:
    """Print the share of the attributes asked for that the classifier finds, for each way."""
    requests = read_requests(prompts)
    shared: dict = {}
    for label, run, how in ways(teacher, tuned):
        with tempfile.TemporaryDirectory() as folder:
            sample_images(run, requests, Path(folder) / "drawn", how=how)
            scores = evaluate(
                Path(folder) / "drawn", prompts, metrics=["toy attributes"], shared=shared
            )
        print(f"{label:20}", scores["toy attributes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["count", "draw", "score"])
    parser.add_argument("runs", nargs="*", help="the teacher, and the consistency run")
    parser.add_argument("--prompts", default="data/toy/test.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "few_steps.png")
    options = parser.parse_args()
    if options.what == "count":
        count()
    elif options.what == "draw":
        draw(*options.runs, options.prompts, options.out)
    else:
        score(*options.runs, options.prompts)


if __name__ == "__main__":
    main()
