"""python -m tinyldm encode: build the latent cache that train.py would build, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinyldm.autoencoder.pixels import load_vae
from tinyldm.data.examples import Example, Examples
from tinyldm.data.images import Augmentation, load_image
from tinyldm.data.latents import LatentCache, open_or_build
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.files import naming
from tinyldm.tasks import landscape
from tinyldm.tasks.table import condition_facts, load_encoder, read_examples
from tinyldm.toy.monsters import ensure_toy
from tinyldm.training.options import GROUPS, add_group
from tinyldm.training.settings import TrainSettings, defaults_for

TOY_FOLDER = Path("data/toy")
OPTIONS = ("vae", "text-encoder", "label-form", "image-encoder", "seed", "device")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those options of train.py that decide what is encoded; the seed draws the augmented copies."""
    parser.argument_default = argparse.SUPPRESS
    add_group(parser, "data", GROUPS["data"])
    known = {flag: option for options in GROUPS.values() for flag, option in options.items()}
    add_group(parser, "models", {flag: known[flag] for flag in OPTIONS})


def run(options: argparse.Namespace) -> None:
    """Encode what the options name, and tell how much it is and where."""
    given = {name: value for name, value in vars(options).items() if name != "command"}
    device = pick_device(given.get("device", "auto"))
    _, examples = read_data(given, given.pop("task", None))
    settings = defaults_for(given, native_size(examples), examples.task)
    config = settings.to_dict() | {"condition": condition_facts(settings, examples)}
    cache = open_cache(settings, examples, *load_frozen(config, device), device)
    channels, height, width = cache.shape
    left_out = f"; {cache.skipped} left out, first {cache.left_out[0]}" if cache.skipped else ""
    print(
        f"{len(cache)} images of {cache.views} views, latents {channels}x{height}x{width}, in {cache.folder}{left_out}"
    )


def read_data(settings: dict, task: str | None = None) -> tuple[Path, Examples]:
    """The folder and the examples that settings (data, skip_bad, hold_out) name; no data is the toy set, drawn if need be."""
    with naming(TOY_FOLDER):
        folder = ensure_toy(TOY_FOLDER) if settings.get("data") is None else Path(settings["data"])
    return folder, read_examples(
        folder, "train", settings.get("skip_bad", False), task, settings.get("hold_out", 0.0)
    )


def native_size(examples: list[Example]) -> tuple[int, int]:
    """(height, width) of the first image that can be read."""
    problems = []
    for example in examples:
        try:
            width, height = load_image(example.image).size
            return height, width
        except InputError as error:
            problems.append(str(error))
    raise InputError(problems[0] + f" (and {len(problems) - 1} more such)" * (len(problems) > 1))


def load_frozen(config: dict, device, place: str | Path = ""):
    """The autoencoder and the encoder of conditions that a config names, on the device.

    InputError: others of the same name than those that place, with this config, was trained with.
    """
    vae = load_vae(config["vae"], device)
    how = config.get("condition", {"task": "text", "name": config["text_encoder"]})
    text_encoder = load_encoder(how, tuple(side // vae.factor for side in config["size"]), device)
    for key, model, name in (
        ("vae", vae, config["vae"]),
        ("text_encoder", text_encoder, how.get("name", "labels")),
    ):
        if config.get(f"{key}_fingerprint") not in (None, model.fingerprint):
            kind = key.removeprefix("text_")  # of maps or labels, too
            raise InputError(
                f"{name}: is not the {kind} that {place} was trained with, or was read otherwise"
            )
    return vae, text_encoder


def open_cache(
    settings: TrainSettings, examples, vae, text_encoder, device, progress: bool = True
) -> LatentCache:
    """The latent cache that the settings ask for, built first unless it is there."""
    s = settings
    try:
        augmentation = Augmentation(
            flip=s.flip, copies=s.copies, crop=s.crop, jitter=s.jitter, seed=s.seed
        )
    except ValueError as error:
        raise InputError(f"--copies, --crop, --jitter: {error}") from None
    build = landscape.open_cache if s.task == "landscape" else open_or_build
    cache = build(
        examples,
        None if s.vae == "none" else vae,
        text_encoder,
        s.size,
        augmentation,
        device=device,
        workers=s.workers,
        progress=progress,
        skip_bad=s.skip_bad,
    )
    if s.centre:
        cache.centre()
    return cache
