"""Where a run on sets of labels loses them: it draws from real pictures under ever less noise.

    python docs/lost_labels.py RUN [RUN ...] --data iclevr --evaluator judge

For each run it prints a row for each level that drawing begins at: how much noise there is, the
mean squared error of the network's x0 (the latents have a mean square of about 1, those of full
scenes more), and the share of the labels that the judge finds in what is drawn from there. Pictures
with as many labels as --labels says are taken, evenly from the training set.
"""

import argparse

import torch

import tinyldm
from tinyldm.data.images import from_bytes, load_image, resize, to_bytes
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.unipc import UniPC
from tinyldm.scores.evaluator import Evaluator
from tinyldm.tasks.base import read_examples
from tinyldm.tasks.judges import top_k_accuracy
from tinyldm.tasks.labels import wanted_labels

STEPS, SCALE = 16, 4.0
BEGIN = (0, 1, 2, 3, 4, 6, 8, 10)  # steps of the grid that are left out


def chosen(data, labels, count):
    """`count` training examples with so many labels, evenly from all of them."""
    _, examples = read_examples(data, task="labels")
    fitting = [example for example in examples if len(set(example.prompts[0].names)) == labels]
    count = min(count, len(fitting))
    return [fitting[k * len(fitting) // count] for k in range(count)]


@torch.inference_mode()
def rows(run, examples, judge):
    """(log(alpha / sigma), error of x0, share of labels) for each beginning; first for the VAE."""
    model = tinyldm.load(run, device="cpu")
    prompts = [example.prompts[0] for example in examples]
    condition = model.text_encoder.encode(prompts)
    asked = wanted_labels(prompts, judge.names)
    pixels = [from_bytes(to_bytes(resize(load_image(e.image), model.size))) for e in examples]
    x0 = model.encode(torch.stack(pixels))

    def found(latents):
        pictures = torch.stack([to_bytes(picture) for picture in model.decode(latents)])
        return top_k_accuracy(judge.logits(pictures), asked)

    yield None, 0.0, found(x0)
    grid = model.schedule.grid(STEPS)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    how = {
        "solver": UniPC(),
        "condition": condition,
        "prediction": model.checkpoint.prediction,
        "guidance": Guidance(SCALE, model.checkpoint.null),
        "noise": noise,
        "init": x0,
    }
    for k in BEGIN:
        level = grid[k]
        x_t = level.alpha * x0 + level.sigma * noise
        predicted = model.network(x_t, torch.full((len(x0),), float(level.t)), condition)
        guess, _ = to_x0_eps(predicted, x_t, level, how["prediction"])
        drawn = sample(model.network, x0.shape, model.schedule, spacing=grid[k:], **how)
        yield level.lambda_, (guess - x0).square().mean().item(), found(drawn)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data", required=True, help="the folder of the pictures")
    parser.add_argument("--evaluator", required=True, help="the folder of the judge")
    parser.add_argument("--labels", type=int, default=3, help="of each picture (default: 3)")
    parser.add_argument("--count", type=int, default=96, help="of pictures (default: 96)")
    options = parser.parse_args()
    examples = chosen(options.data, options.labels, options.count)
    if not examples:
        parser.error(f"--labels {options.labels}: no picture of {options.data} has so many")
    judge = Evaluator.load(options.evaluator)
    print("| run | log(alpha / sigma) | error of x0 | labels found |\n| --- | --- | --- | --- |")
    for run in options.runs:
        for level, error, share in rows(run, examples, judge):
            begin = "the VAE alone" if level is None else f"{level:.2f}"
            print(f"| {run} | {begin} | {error:.4f} | {share:.3f} |", flush=True)


if __name__ == "__main__":
    main()
