"""python -m tinyldm encode: build the latent cache that train.py would build, without training."""

from __future__ import annotations

import argparse
from dataclasses import fields

from tinyldm.cli import Parser, add_options
from tinyldm.errors import say
from tinyldm.training.settings import TrainSettings

MORE = ("vae", "text_encoder", "label_form", "image_encoder", "seed", "device")
"""Options of train.py besides those of its data that decide what is encoded, and where."""


def add_arguments(parser: Parser) -> None:
    """The options of train.py that decide what is encoded."""
    parser.keep_only_given()
    data = [f.name for f in fields(TrainSettings) if f.metadata["option"].group == "data"]
    add_options(parser, TrainSettings, only=[*data, *MORE])


def run(options: argparse.Namespace) -> None:
    """Encode what the options name, and print how much it is and where."""
    from tinyldm.device import pick_device
    from tinyldm.processes import joined
    from tinyldm.toy.folder import data_folder
    from tinyldm.training.data import open_cache, read_data
    from tinyldm.training.frozen_models import load_frozen

    given = {name: value for name, value in vars(options).items() if name != "command"}
    with joined(pick_device(given.get("device", "auto"))) as processes:
        with processes.main_first():
            data = read_data(data_folder(given.get("data")), given)
        settings = data.settings(given)
        models = load_frozen(data.facts(settings, []), processes.device)
        cache = open_cache(settings, data.examples, models, processes)
        if not processes.is_main:
            return
        cache.check_files()
    size = "x".join(map(str, cache.shape))
    left_out = ""
    if cache.left_out:
        left_out = f"; {len(cache.left_out)} left out, first {cache.left_out[0]}"
    say(f"{len(cache)} images of {cache.views} views, latents {size}, in {cache.folder}{left_out}")
