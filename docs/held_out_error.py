"""How well runs guess pictures that they were not trained on, whatever they predict.

    python docs/held_out_error.py RUN [RUN ...]

The runs are those of train.py --hold-out. Under the same signal-to-noise ratio all schedules show
the same picture, but for a factor, so the estimates of x0 can be compared (2107.00630). For each
run it prints a row: the mean squared error of x0, in units of the latents' variance, at each
log(alpha / sigma), with three seeds of the noise, the same for all runs.
"""

import sys
from pathlib import Path

import torch

import tinyldm
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.sampling.drawing import encode_prompts
from tinyldm.tasks.base import read_examples
from tinyldm.training.checkpoint import settings_of

LAMBDAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
SEEDS = (0, 1, 2)


@torch.inference_mode()
def errors(run):
    """The error at each of LAMBDAS."""
    model = tinyldm.load(run, device="cpu")
    config = model.checkpoint.config
    settings = settings_of(config)
    folder = Path(config["data_folder"])
    _, examples = read_examples(folder, task=settings.task, hold_out=settings.hold_out)
    if not examples.held_out:
        raise SystemExit(f"{run}: was trained without --hold-out")
    images = [resize(load_image(e.image), model.size) for e in examples.held_out]
    x0 = model.encode(torch.stack([from_bytes(to_bytes(image)) for image in images]))
    condition = encode_prompts(model.text_encoder, [e.prompts[0] for e in examples.held_out])
    found = []
    for lambda_ in LAMBDAS:
        t = model.schedule.t_of_lambda(lambda_).item()
        level, total = model.schedule.level(t), 0.0
        for seed in SEEDS:
            noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
            x_t = level.alpha * x0 + level.sigma * noise
            predicted = model.network(x_t, torch.full((len(x0),), t), condition)
            guess, _ = to_x0_eps(predicted, x_t, level, model.checkpoint.prediction)
            total += (guess - x0).square().mean().item()
        found.append(total / len(SEEDS))
    return found


def main():
    print(f"| run | {' | '.join(f'{value:g}' for value in LAMBDAS)} |")
    print(f"| --- |{' --- |' * len(LAMBDAS)}")
    for run in sys.argv[1:]:
        print(f"| {run} | {' | '.join(f'{error:.4f}' for error in errors(run))} |", flush=True)


if __name__ == "__main__":
    main()
