"""How well runs guess pictures that they were not trained on, whatever their path and prediction.

    python docs/held_out_error.py runs/a runs/b

The runs are those of train.py --hold-out on the same data. At one signal-to-noise ratio all
schedules show the same picture, but for a factor, so errors of the estimate of x0 can be compared
(2107.00630). Printed is the mean squared error in units of the latents' deviation, at each half
log-SNR lambda, with three seeds of the noise, the same for all runs.
"""

import sys
from pathlib import Path
from statistics import mean

import torch

from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.device import pick_device
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.sampling.drawing import encode_prompts
from tinyldm.tasks.base import read_examples
from tinyldm.training.checkpoint import load_checkpoint, settings_of
from tinyldm.training.frozen_models import load_frozen

LAMBDAS = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
SEEDS = (0, 1, 2)


@torch.inference_mode()
def errors(run: str) -> list[float]:
    """The error at each of LAMBDAS."""
    device = pick_device("auto")
    checkpoint = load_checkpoint(run, device)
    settings = settings_of(checkpoint.config)
    models = load_frozen(checkpoint.config, device, run)
    folder = Path(checkpoint.config["data_folder"])
    _, examples = read_examples(folder, task=settings.task, hold_out=settings.hold_out)
    apart = examples.held_out
    if not apart:
        raise SystemExit(f"{run}: was trained without --hold-out")
    size = tuple(checkpoint.config["size"])
    pixels = torch.stack([from_bytes(to_bytes(resize(load_image(e.image), size))) for e in apart])
    x0 = (models.vae.encode(pixels.to(device)).mean - checkpoint.mean) / checkpoint.std
    condition = encode_prompts(models.encoder, [e.prompts[0] for e in apart])
    found = []
    for lambda_ in LAMBDAS:
        t = checkpoint.schedule.t_of_lambda(lambda_).item()
        level = checkpoint.schedule.level(t)
        each = []
        for seed in SEEDS:
            noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
            x_t = level.alpha * x0 + level.sigma * noise
            times = torch.full((len(x0),), t, dtype=torch.float32)
            predicted = checkpoint.network(x_t, times, condition)
            guess, _ = to_x0_eps(predicted, x_t, level, checkpoint.prediction)
            each.append((guess - x0).square().mean().item())
        found.append(mean(each))
    return found


def main(runs: list[str]) -> None:
    print(f"| run | {' | '.join(f'{value:g}' for value in LAMBDAS)} | mean |")
    print(f"| --- |{' --- |' * (len(LAMBDAS) + 1)}")
    for run in runs:
        found = errors(run)
        cells = [f"{value:.4f}" for value in [*found, mean(found)]]
        print(f"| {run} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
