"""The speed run: how few FLOPs does the toy set need? Results: speedrun.json, speedrun.md.

    python docs/speedrun.py --changed "Muon" --seeds 0 1 2 --max-steps 600 --optimizer muon
    python docs/speedrun.py --write
    python docs/speedrun.py --momentum runs/speedrun/NAME

The first line trains with these options of train.py, once for each seed, draws the 200 unseen
captions, judges them by the attribute classifier and appends a result to speedrun.json. The second
writes the table of speedrun.md. The third tells what iterations make of the momenta of a run. FLOPs
are those that torch.utils.flop_counter counts over the whole training, optimiser included. Runs and
pictures go to runs/speedrun, data to data/toy. Under torchrun several processes train, and the
FLOPs are those of all of them together. A run that is there already is only judged again: after a
change of the defaults, remove runs/speedrun.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from speedrun_ideas import IDEAS, OBJECTIVES
from torch.utils.flop_counter import FlopCounterMode
from written import kept, processor, put

from tinyldm.data.images import from_bytes
from tinyldm.device import pick_device
from tinyldm.diffusion.loss import training_loss
from tinyldm.processes import joined
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing
from tinyldm.scores import attributes
from tinyldm.scores.files import read_pixels
from tinyldm.toy.folder import data_folder
from tinyldm.toy.monsters import ATTRIBUTES
from tinyldm.training.checkpoint import find_checkpoint
from tinyldm.training.data import open_cache, read_data
from tinyldm.training.frozen_models import load_frozen
from tinyldm.training.muon import QUINTIC
from tinyldm.training.network import DataShape, build_network, network_recipe
from tinyldm.training.options import train_parser
from tinyldm.training.trainer import Trainer
from tinyldm.typed import read_json
from tinyldm.weights import read_weights

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).with_suffix(".md")
RUNS = Path("runs/speedrun")
FACTS = "speedrun.json"
RECORD = {"colour": 0.99, "shape": 0.98, "feature": 0.98, "eyes": 0.93, "action": 0.98}
BAND = 0.68  # the quintic takes a singular value to between this and 1.2
SEEDS = 3  # the scores of a record are a mean of so many


def train(given, run, processes, ideas=()):
    """Train a run without previews, in its folder, and write what its result says of it there.

    ideas: names of IDEAS, which change the trainer before it starts
    """
    data = read_data(data_folder(None), given)
    settings = data.settings(given)
    facts = data.facts(settings, data.preview_prompts())
    models = load_frozen(facts, processes.device)
    cache = open_cache(settings, data.examples, models, processes)
    recipe = network_recipe(settings, DataShape.of(cache.shape, cache.null))
    torch.manual_seed(settings.seed)
    if processes.is_main:
        run.mkdir(parents=True)
    facts |= {"network": recipe, "latent_shape": list(cache.shape), **models.fingerprints}
    trainer = Trainer(build_network(recipe), cache, settings, run, facts=facts, processes=processes)
    for idea in ideas:
        IDEAS[idea](trainer, models)
    with FlopCounterMode(display=False) as whole:
        trainer.fit()
    error = fresh_error(trainer)
    with FlopCounterMode(display=False) as step:
        for optimizer in trainer.optimizers:
            optimizer.step()  # after the end: nobody looks at these weights
    own = torch.tensor([whole.get_total_flops(), step.get_total_flops()], dtype=torch.float64)
    flops, of_a_step = (processes.mean(own) * processes.world).tolist()
    result = {
        "seed": settings.seed,
        "steps": settings.max_steps,
        "batch": settings.batch_size,
        "tflop": flops / 1e12,
        "optimizer_tflop": of_a_step * settings.max_steps / 1e12,
        "error": error,
        "processes": processes.world,
    }
    if processes.is_main:
        (run / FACTS).write_text(json.dumps(result))


@torch.no_grad()
def fresh_error(trainer, n=512):
    """The mean error of the averaged network's prediction of n pictures, at all t alike.

    The noise is fresh. Unlike the loss that the log shows, it does not depend on how t is drawn or
    weighted.
    """
    network, schedule, total = trainer.ema.network, trainer.schedule, 0.0
    generator = torch.Generator().manual_seed(1)
    for indices in torch.randperm(len(trainer.cache), generator=generator)[:n].split(32):
        x0, condition = trainer.cache.batch(indices, generator)
        t = (torch.rand(len(indices), generator=generator) * schedule.timesteps).long()
        how = {"prediction": trainer.settings.prediction, "t": t, "generator": generator}
        loss = training_loss(network, x0, condition, schedule, **how)
        total += loss.sum().item()
    return total / n


def judge(run, how, batch_size=32):
    """Draw the 200 unseen captions. Returns the share in which each attribute is what was asked."""
    folder = data_folder(None)
    data = read_data(folder, {})
    requests = data.task.requests(folder / "test.json")
    out = sample_images(run, requests, run / f"samples-{how.steps}", how=how, batch_size=batch_size)
    wanted = read_json(folder / "attributes.json", dict)
    truth = {}
    for name, values in ATTRIBUTES.items():
        truth[name] = [values.index(wanted[Path(r.name).stem][name]) for r in requests]
    pixels = read_pixels([out / r.name for r in requests], (64, 64))
    return attributes.accuracy(attributes.load_classifier().read(from_bytes(pixels)), truth)


def measure(options, given, processes):
    """Train, draw, judge and append a result, for each seed."""
    for seed in options.seeds:
        name = "-".join(f"{key}={value}" for key, value in given.items()) or "default"
        ideas = ", ".join(options.idea)
        if ideas:
            name += f"-{ideas}"
        run = RUNS / f"{name}-seed={seed}"
        if not (run / FACTS).exists():  # else it was trained before, and is only judged
            train({**given, "seed": seed}, run, processes, options.idea)
        if not processes.is_main:
            continue
        facts = json.loads((run / FACTS).read_text())
        how = Drawing(steps=options.sample_steps)
        idea = {"idea": ideas} if ideas else {}
        result = {"changed": options.changed, "options": {**given, **idea}, **facts}
        result["drawn"] = f"guidance {how.guidance:g}, {how.steps} steps of dpm++"
        result["scores"] = {} if options.only_error else judge(run, how)
        result["machine"] = f"{processor()}, torch {torch.__version__}"
        RESULTS.write_text(json.dumps([*kept(RESULTS), result], indent=1) + "\n")
        print(table([result]))


def table(found):
    """The results as a table: a row for each change, with the mean over its seeds."""
    names = list(RECORD)
    rows = [
        f"| what changed | steps x batch | TFLOP | of them optimiser | seeds | error "
        f"| {' | '.join(names)} | |",
        f"| --- | --- | --- | --- | --- | --- |{' --- |' * len(names)} --- |",
    ]
    groups = {}
    for result in found:
        key = json.dumps([result["changed"], result["options"], result["drawn"]])
        groups.setdefault(key, []).append(result)
    for group in groups.values():
        mean, shown = {}, ["not drawn"] + [""] * (len(names) - 1)
        if group[0]["scores"]:
            mean = {name: sum(r["scores"][name] for r in group) / len(group) for name in names}
            shown = [f"{mean[name]:.3f}".removeprefix("0") for name in names]
        reached = mean and all(mean[name] >= least for name, least in RECORD.items())
        verdict = "" if not mean else "short of it"
        if reached:
            verdict = "**record**" if len(group) >= SEEDS else "reached, by one seed"
        first = group[0]
        cells = [
            first["changed"],
            f"{first['steps']} x {first['batch']}",
            f"{average(group, 'tflop'):.1f}",
            f"{average(group, 'optimizer_tflop'):.1f}",
            ", ".join(str(seed) for seed in sorted(r["seed"] for r in group)),
            f"{average(group, 'error'):.4f}",
            *shown,
            verdict,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def average(group, key):
    """The mean of a number over results."""
    return sum(result[key] for result in group) / len(group)


def momenta(run):
    """Print what iterations do to the singular values of Muon's momenta in a run's checkpoint."""
    state = read_weights(find_checkpoint(run) / "training.safetensors")
    a, b, c = QUINTIC
    ends = {}
    for name, momentum in state.items():
        if not name.startswith("momentum."):
            continue
        values = torch.linalg.svdvals(momentum.flatten(1).double())
        for bound, power in {"norm": 2, "(tr A^4)^(1/8)": 8}.items():
            x = values / (values**power).sum() ** (1 / power)
            for iteration in range(1, 6):
                x = a * x + b * x**3 + c * x**5
                ends.setdefault((bound, iteration), []).append((x > BAND).double().mean().item())
    for (bound, iteration), shares in ends.items():
        share = sum(shares) / len(shares)
        print(f"bound {bound:15} {iteration} iterations: {share:.2f} of the values above {BAND}")


def arguments(words=None):
    """The options of this script, and what is given of those of train.py."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--changed", default="the default", help="what the table calls it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to train with")
    parser.add_argument("--sample-steps", type=int, default=20, help="steps of the solver")
    parser.add_argument(
        "--only-error", action="store_true", help="draw and judge nothing: for a first look"
    )
    parser.add_argument(
        "--idea", nargs="+", default=[], choices=IDEAS, help="ideas to add, of speedrun_ideas.py"
    )
    parser.add_argument("--write", action="store_true", help="only write the table")
    parser.add_argument("--momentum", metavar="RUN", help="only look at the momenta of a run")
    options, rest = parser.parse_known_args(words)
    given = vars(train_parser().parse_args(rest))
    replaced = [idea for idea in options.idea if idea in OBJECTIVES]
    if len(options.idea) > len(set(options.idea)) or len(replaced) > 1:
        parser.error(f"--idea {' '.join(options.idea)}: expected each once, one loss among them")
    if replaced and given.setdefault("loss_weights", "plain") == "even":
        parser.error(f"--idea {replaced[0]}: expected no --loss-weights even with it")
    return options, given


def main():
    options, given = arguments()
    if options.write:
        put(PAGE, "runs", table(kept(RESULTS)))
        return
    if options.momentum:
        momenta(options.momentum)
        return
    with joined(pick_device("cpu")) as processes:
        measure(options, given, processes)


if __name__ == "__main__":
    sys.exit(main())
