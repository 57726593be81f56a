"""A really small real run of everything: what the attack damages.

All of it is made by the library itself, in seconds: data of three tasks, a CLIP and an autoencoder
of a few kilobytes, runs of three tasks, pictures, scores, a sweep, an evaluator, a folder for
diffusers.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import train as train_script
from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.commands.convert import to_diffusers
from tinyldm.data.cache import cache_folder
from tinyldm.data.examples import Request
from tinyldm.frozen.loading import TINY
from tinyldm.nn.config import UNetConfig
from tinyldm.pages.sweep import Setting, Sweep, sweep
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing
from tinyldm.scores import attributes
from tinyldm.scores.evaluation import evaluate
from tinyldm.scores.evaluator import Evaluator, find_judge
from tinyldm.scores.held_out import Validation
from tinyldm.scores.written import write_scores
from tinyldm.tasks.base import read_requests
from tinyldm.toy.landscapes import write_landscapes
from tinyldm.toy.monsters import write_toy
from tinyldm.training.checkpoint import find_checkpoint
from tinyldm.training.presets import PRESETS
from tinyldm.weights import write_weights

sys.modules["matplotlib"] = None  # type: ignore[assignment]  # curves take a second each
PRESET = "attacked"
NETWORK = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=8
)
SHORT = {
    "size": (16, 16),
    "preset": PRESET,
    "max_steps": 2,
    "batch_size": 2,
    "warmup": 1,
    "workers": 1,
    "sample_every": 2,
    "save_every": 1,
    "cfg_drop": 0.1,
    "device": "cpu",
    "precision": "float32",
    "vae": "vae",
}
QUICK = Drawing(steps=2, guidance=2.0, precision="float32")
LABELS = ("red cube", "red sphere", "blue cube", "blue sphere")
CAPTIONS = ("a red square", "a green square", "a blue square", "something else", "a face", "")


def make(folder: Path) -> None:
    """Write everything below the working folder, which is `folder`, the cache included."""
    PRESETS[PRESET] = NETWORK  # resuming needs no preset: a checkpoint has the whole config
    torch.manual_seed(0)
    write_clip(folder / "clip")
    write_vae(folder / "vae")
    write_captions(folder / "captions")
    write_labels(folder / "labels")
    write_landscapes(folder / "land", train=4, test=2, size=(24, 32))
    trim_toys(folder)
    write_other_tables(folder)
    train_all()
    draw_and_score(folder)
    write_evaluator(folder / "evaluator")
    to_diffusers(Path("runs/captions"), folder / "diffusers")


def write_clip(folder: Path) -> None:
    """A CLIP of two narrow layers with random weights, and the tokenizer of the tiny one."""
    from transformers import CLIPConfig, CLIPModel

    tower = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    tiny = json.loads((TINY / "config.json").read_text())["text_config"]
    kept = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    text = {**tower, **{name: tiny[name] for name in kept if name in tiny}}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copyfile(TINY / name, folder / name)


def write_vae(folder: Path) -> None:
    """An autoencoder with random weights, half the size along each side."""
    shape = AutoencoderConfig(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    AutoencoderKL(shape).save_pretrained(folder)


def noise(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """An RGB image of noise, (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_captions(folder: Path) -> None:
    """Any folder of images with captions, in several formats, and a file of prompts."""
    folder.mkdir()
    suffixes = (".png", ".jpg", ".webp", ".bmp", ".png", ".png")
    lines = []
    for k, (caption, suffix) in enumerate(zip(CAPTIONS, suffixes, strict=True)):
        noise(k).save(folder / f"{k}{suffix}")
        lines.append(json.dumps({"file_name": f"{k}{suffix}", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS[:3]) + "\n")


def write_labels(folder: Path) -> None:
    """Pictures with labels, as i-CLEVR has them."""
    (folder / "images").mkdir(parents=True)
    table = {}
    for k in range(6):
        noise(10 + k).save(folder / "images" / f"train_{k}_0.png")
        table[f"train_{k}_0.png"] = [LABELS[k % 4], LABELS[(k + 1) % 4]]
    numbers = {name: number for number, name in enumerate(LABELS)}
    (folder / "objects.json").write_text(json.dumps(numbers))
    (folder / "train.json").write_text(json.dumps(table, indent=1))
    (folder / "test.json").write_text(json.dumps([[LABELS[0]], [LABELS[1], LABELS[2]]]))


def trim_toys(folder: Path) -> None:
    """The toy set of one monster and four test prompts."""
    write_toy(folder / "toy", train_monsters=1)
    for name in ("test.json", "attributes.json"):
        file = folder / "toy" / name
        content = json.loads(file.read_text())
        file.write_text(json.dumps(dict(list(content.items())[:4]), indent=1))


def write_other_tables(folder: Path) -> None:
    """The animal-object pairs, a metadata.csv, and the moments of a reference."""
    pairs, table = folder / "pairs", folder / "table"
    pairs.mkdir()
    table.mkdir()
    for k in range(3):
        noise(20 + k).save(pairs / f"{k:06d}.png")
        noise(30 + k).save(table / f"{k}.png")
    (pairs / "train.csv").write_text("id,animal,object\n000000.png,fish,chair\n000001.png,ox,cup\n")
    (pairs / "generate.csv").write_text(
        "id,animal,object,prompt\n000007.png,shark,sneaker,a shark and a sneaker\n"
        '000008.png,ant,cup,"an ant, and a cup"\n'
    )
    (table / "metadata.csv").write_text('file_name,text\n0.png,one\n1.png,"two, three"\n2.png,x\n')
    moments = folder / "moments"
    moments.mkdir()
    features = np.random.default_rng(0).normal(size=(12, 8))
    np.save(moments / "test_mu.npy", features.mean(0))
    np.save(moments / "test_sigma.npy", np.cov(features, rowvar=False))


def train_all() -> None:
    """Two steps of each of the three tasks; caches.json says which caches each run has built."""
    runs = {
        "captions": {"text_encoder": "clip", "hold_out": 0.3},
        "labels": {},
        "land": {"image_encoder": "clip", "size": (24, 32)},
        "toy": {"text_encoder": "clip"},
    }
    built: dict[str, list[str]] = {}
    before: set[str] = set()
    for name, settings in runs.items():
        train_script.train({**SHORT, **settings, "data": name, "out": f"runs/{name}"})
        now = {str(path.parent) for path in Path("cache").glob("*/*/cache.json")}
        built[name] = sorted(now - before)
        before |= now
    Path("caches.json").write_text(json.dumps(built))


def draw_and_score(folder: Path) -> None:
    """Pictures of a run with their record, their scores, and a sweep."""
    requests = [Request(f"{k}.png", CAPTIONS[k]) for k in range(3)]
    sample_images("runs/captions", requests, folder / "samples", how=QUICK, device="cpu")
    scores = evaluate(
        "samples", reference="captions", metrics=["clip-fd"], clip="clip", device="cpu"
    )
    write_scores(folder / "runs" / "captions" / "scores.json", scores, images="samples")
    toys = read_requests("toy/test.json")
    sample_images("runs/toy", toys, folder / "toys", how=QUICK, device="cpu")
    write_classifier()
    small_sweep(requests)


def small_sweep(requests: list[Request]) -> Any:
    """A sweep of the run over two scales of guidance; it goes on with what is there."""
    run = Path("runs/captions")
    job = Sweep(
        run=run,
        out=run / "sweep",
        validation=Validation(requests, [], {}),
        metrics=["clip-t"],
        judges={"reference": None, "evaluator": None, "clip": "clip"},
        submission=("prompts", "FILE"),
        device="cpu",
    )
    newest = find_checkpoint(run)
    return sweep(job, [Setting(newest, guidance, 2, "dpm++") for guidance in (1.0, 2.0)])


def write_classifier() -> None:
    """The classifier of the toys' attributes as it starts, in place of a minute of training."""
    torch.manual_seed(0)
    file = cache_folder() / "attributes" / f"{attributes.version()}.safetensors"
    file.parent.mkdir(parents=True)
    write_weights(file, attributes.AttributeNet().state_dict())


def write_evaluator(folder: Path) -> None:
    """An evaluator of the labels as it starts."""
    torch.manual_seed(0)
    judge = find_judge("labels", LABELS)
    net = judge.network(len(LABELS)).eval()
    scores = {name: 0.5 for name in judge.scores}
    Evaluator("labels", net, LABELS, (16, 16), images=4, held_out=scores).save(folder)
