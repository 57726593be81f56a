"""What a kind of file is, and the readings of the commands; the kinds stand in table.py.

A reading is a function without arguments, called in the folder that material.py has filled. It
returns whatever the command would go on with, or raises InputError.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from material import LABELS, QUICK, small_sweep

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.autoencoder.perceptual import Perceptual
from tinyldm.commands import convert as convert_command
from tinyldm.data.examples import Request
from tinyldm.data.images import load_image
from tinyldm.frozen.image import ClipScorer
from tinyldm.pages.report import write_report
from tinyldm.processes import ALONE
from tinyldm.sampling.drawing import Painter, encode_prompts
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import SampleOptions
from tinyldm.scores import metrics
from tinyldm.scores.distances import read_moments
from tinyldm.scores.evaluation import evaluate
from tinyldm.scores.evaluator import Evaluator
from tinyldm.tasks.base import read_examples, read_requests
from tinyldm.tasks.segmentation import load_map
from tinyldm.training import frozen_models
from tinyldm.training.checkpoint import (
    Config,
    find_checkpoint,
    load_checkpoint,
    read_config,
    task_of,
)
from tinyldm.training.data import open_cache, read_data
from tinyldm.training.frozen_models import FrozenModels, load_frozen
from tinyldm.training.log import RunLog
from tinyldm.training.network import build_network
from tinyldm.training.run import RunFolder
from tinyldm.training.settings import TrainSettings
from tinyldm.training.trainer import Trainer

metrics.DRAWINGS = 8  # of the toys that show what the classifier can read, not 2,000
NEWEST = "runs/captions/checkpoints/step-0000002"
CPU = torch.device("cpu")
TEXT = ("text", "number")
LIST = (*TEXT, "missing", "more", "shorter", "longer")


@dataclass(frozen=True)
class Kind:
    """A kind of file and its reading.

    files:   of this kind, from the folder; ones with a star are found there
    read:    the reading
    accepts: the changes of a value after which another result is the right one; for a file that
             is no JSON, ("anything",). (): the result must be that of the whole file
    writes:  folders and files that the command may write
    named:   words of which a refusal has to hold one; (): the name of the file
    must:    the file never stops the command
    seal:    the JSON file whose checksums are taken out of it, or ""
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[], Any]
    accepts: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    must: bool = False
    seal: str = ""

    def found(self) -> list[Path]:
        """The files of this kind that are there."""
        paths = []
        for pattern in self.files:
            paths += sorted(Path().glob(pattern)) if "*" in pattern else [Path(pattern)]
        return paths


# ---- frozen models, loaded once as long as a config names the same


@cache
def frozen_for(facts: str, place: Path) -> FrozenModels:
    """The frozen models of a config, given as JSON, that lies in a folder."""
    return load_frozen(Config(json.loads(facts), place / "config.json"), CPU, place)


def frozen(config: Config) -> FrozenModels:
    """What load_frozen returns, from memory for a config that names the models of before."""
    names = ("vae", "text_encoder", "size", "condition", "vae_fingerprint")
    kept = {name: config[name] for name in names if name in config}
    kept["text_encoder_fingerprint"] = config.get("text_encoder_fingerprint")
    return frozen_for(json.dumps(kept, sort_keys=True), config.file.parent)


# ---- a checkpoint


def draw_one(run: str = "runs/captions") -> Any:
    """Draws a picture with the newest checkpoint, as sample.py does."""
    checkpoint = load_checkpoint(run)
    config = read_config(checkpoint.path)
    task = task_of(config)
    options = SampleOptions(steps=2, precision="float32", device="cpu")
    how = options.drawing(task, config["settings"])
    models = frozen(config)
    painter = Painter.of(checkpoint, models.vae, task, how, device=CPU)
    prompts = [task.prompt("a red square", Path("captions"))]
    return painter.draw(encode_prompts(models.encoder, prompts), [0]), how.guidance


def resume() -> Any:
    """Goes on with the training of the newest checkpoint, up to the first step."""
    run, given = RunFolder.asked({"resume": True, "out": "runs/captions", "max_steps": 4})
    assert run.saved is not None
    settings = run.of_length(
        TrainSettings.from_dict(run.settings_given(given)), images=4, processes=ALONE
    )
    settings = replace(settings, compile=False)  # which takes a minute
    cache, _ = opened("captions")
    run.check_data(Path("captions"), cache.key)
    trainer = Trainer(
        build_network(run.saved["network"]),
        cache,
        settings,
        Path("runs/captions"),
        perceptual=Perceptual(frozen(run.saved).vae, cache.mean, cache.std),
    )
    trainer.restore(find_checkpoint("runs/captions"))
    loss = trainer.gradient().item()
    gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        loss = 0.0  # the loop leaves such a batch out, and ends after some
    return trainer.training_state(), trainer.ema.network.state_dict(), trainer.progress, loss


@cache
def opened(run: str) -> tuple[Any, TrainSettings]:
    """The latent cache of a run, opened."""
    config = read_config(find_checkpoint(f"runs/{run}"))
    settings = TrainSettings.from_dict(config["settings"])
    data = read_data(Path(str(settings.data)), config["settings"])
    return open_cache(settings, data.examples, frozen(config), ALONE), settings


def batches(run: str) -> Callable[[], Any]:
    """A reading of the latent cache of a run: all of it, in two batches."""
    config = read_config(find_checkpoint(f"runs/{run}"))
    settings = TrainSettings.from_dict(config["settings"])
    data = read_data(Path(str(settings.data)), config["settings"])
    models = frozen(config)

    def read() -> Any:
        cache = open_cache(settings, data.examples, models, ALONE)
        generator = torch.Generator().manual_seed(0)
        rows = torch.arange(len(cache))
        found = [cache.batch(rows, generator) for _ in range(2)]
        return found, cache.mean, cache.std, cache.null, cache.key

    return read


# ---- what was drawn, and its scores


def drawn(requests: list[Request], **options: Any) -> Path:
    """Call sample_images, with frozen models from memory."""
    with mock.patch.object(frozen_models, "load_frozen", lambda config, *where: frozen(config)):
        return sample_images(
            "runs/captions", requests, "samples", how=QUICK, device="cpu", **options
        )


def go_on_drawing() -> Any:
    """Calls a sampling job once more that is complete."""
    requests = read_requests("captions/prompts.txt")
    named = [replace(request, name=f"{k}.png") for k, request in enumerate(requests)]
    out = drawn(named)
    return [load_image(out / request.name) for request in named]


def draw_again() -> Any:
    """The same with --overwrite: what the record names is removed first."""
    requests = read_requests("captions/prompts.txt")
    named = [replace(request, name=f"{k}.png") for k, request in enumerate(requests)]
    out = drawn(named, overwrite=True)
    return [load_image(out / request.name) for request in named]


def go_on_sweeping() -> Any:
    """Calls a sweep once more that is complete."""
    folder = Path("runs/captions/sweep")
    result = small_sweep(read_requests(folder / "prompts.json"))
    return result, (folder / "sweep.html").read_text()


def report() -> Any:
    """Writes the page of a run."""
    return write_report(Path("runs/captions")).read_text()


def score_toys() -> Any:
    """Scores pictures of toys by their attributes."""
    return evaluate("toys", prompts="toy/test.json", metrics=["toy attributes"], device="cpu")


def judge() -> Any:
    """Reads labels off pictures with an evaluator."""
    evaluator = Evaluator.load("evaluator")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), generator=generator, dtype=torch.uint8)
    truth = torch.eye(len(LABELS)).bool()
    return evaluator.scores(pixels, truth), evaluator.held_out, evaluator.images, evaluator.names


def log_of_a_run() -> Any:
    """Goes on with the log of a training; no row that is whole may be lost, or come twice."""
    file = Path("runs/captions/log.csv")
    there = file.read_text("utf-8", "replace").splitlines()
    whole = Path("../pristine", file).read_text("utf-8").splitlines()
    with RunLog(Path("runs/captions"), 2, 3) as log:
        log.row(3, loss=1.0, lr=1.0, grad_norm=1.0, images=2)
    lines = file.read_text().splitlines()
    lost = [row for row in whole if row in there and lines.count(row) != 1]
    assert not lost, f"lost, or there twice: {lost}"
    return [line.rpartition(",")[0] for line in lines]  # the speed aside


# ---- frozen models


def text_encoder() -> Any:
    """The frozen models of a run, which have fingerprints there."""
    config = read_config(find_checkpoint("runs/captions"))
    models = load_frozen(config, CPU, "runs/captions")
    return models.encoder.encode(["a red square"]), models.vae.decode(torch.ones(1, 4, 8, 8))


def style_encoder() -> Any:
    """The same with a CLIP that looks at pictures."""
    config = read_config(find_checkpoint("runs/land"))
    models = load_frozen(config, CPU, "runs/land")
    return models.encoder.fingerprint, models.encoder.encode([models.encoder.empty])


def scorer() -> Any:
    """A CLIP to score by, which has no fingerprint anywhere."""
    clip = ClipScorer.load("clip")
    return clip.images([load_image("captions/0.png")]), clip.texts(["a red square"])


def autoencoder() -> Any:
    """An autoencoder that no run has used yet."""
    vae = AutoencoderKL.load("vae")
    return vae.decode(torch.ones(1, 4, 8, 8)), vae.factor


# ---- data and prompts


def requests_of(file: str, task: str | None = None) -> Callable[[], Any]:
    """A reading of a file of prompts."""

    def read() -> Any:
        from tinyldm.tasks.base import find_task

        found = read_requests(file, None if task is None else find_task(task))
        for request in found:
            assert (Path("out") / request.name).resolve().parent == Path("out").resolve()
        return [(request.name, request.text) for request in found]

    return read


def examples_of(folder: str) -> Callable[[], Any]:
    """A reading of a data folder, its images included."""

    def read() -> Any:
        _, examples = read_examples(folder)
        found = [(e.name, [str(p) for p in e.prompts], load_image(e.image)) for e in examples]
        return found, examples.names

    return read


def moments() -> Any:
    """The moments of a reference."""
    found = read_moments(Path("moments"))
    return found.mean, found.factor


def pictures_of(folder: str) -> Callable[[], Any]:
    """A reading of the images of a folder."""
    files = sorted(path for path in Path(folder).iterdir() if path.suffix != ".jsonl")

    def read() -> Any:
        return [load_image(file) for file in files if file.suffix != ".txt"]

    return read


def maps() -> Any:
    """The segmentation maps of a folder, each with its image."""
    files = sorted(Path("land/train_resized/labels").iterdir())
    return [load_map(f, Path(f"land/train_resized/imgs/{f.stem}.jpg")) for f in files]


def convert() -> Any:
    """A folder of diffusers as a run."""
    out = Path("converted")
    options = {"vae": None, "text_encoder": None, "scheduler": None, "size": None}
    convert_command.run(Namespace(source=Path("diffusers"), out=out, **options))
    checkpoint = load_checkpoint(out)
    x = torch.linspace(-1, 1, 256).view(1, 4, 8, 8)
    drawn = checkpoint.network(x, torch.tensor([500.0]), checkpoint.null)
    if not bool(drawn.isfinite().all()):
        return draw_one(str(out))  # weights may be huge, but a drawing with them has to be refused
    return checkpoint.network.state_dict(), drawn, checkpoint.schedule, checkpoint.prediction
