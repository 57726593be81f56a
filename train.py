"""Train a latent-diffusion model: python train.py --cfg-drop 0.1

The story of a training, from top to bottom: data, frozen models, latent cache, network, trainer.
"""

from __future__ import annotations

import sys
from shlex import quote
from typing import Any

from tinyldm.cli import guarded
from tinyldm.training.options import parse_options


def main() -> None:
    train(parse_options())  # --help answers here, before torch is imported


def train(given: dict[str, Any]) -> None:
    """Train as the given options ask for, by name; all others take their defaults."""
    from tinyldm.device import pick_device
    from tinyldm.training.processes import joined
    from tinyldm.training.run import RunFolder

    run, given = RunFolder.asked(given)
    with joined(pick_device(given.get("device", "auto"))) as processes:
        train_in(run, given, processes)


def train_in(run: Any, given: dict[str, Any], processes: Any) -> None:
    """Train in a run folder, alone or as one of the processes that torchrun has started."""
    import torch

    from tinyldm.pages.report import after_save
    from tinyldm.sampling.previews import Previews
    from tinyldm.toy.folder import data_folder
    from tinyldm.training.data import open_cache, read_data
    from tinyldm.training.facts import run_facts
    from tinyldm.training.frozen_models import load_frozen
    from tinyldm.training.network import DataShape, build_network, network_recipe
    from tinyldm.training.trainer import Trainer

    # 1. The data, and the settings that follow from it and from the options.
    given = run.resumed(given)
    with processes.main_first():
        data = read_data(data_folder(given.get("data")), given)
    settings = run.of_length(data.settings(given), len(data.examples))
    prompts = data.preview_prompts()

    # 2. The frozen models: an autoencoder, and what encodes the prompts.
    facts = run.saved or run_facts(settings, data)
    models = load_frozen(facts, processes.device)

    # 3. The latent cache: from here on, training sees neither images nor frozen models.
    with processes.main_first():
        cache = open_cache(settings, data.examples, models, processes)
    run.check_data(data.folder, cache.key)

    # 4. The network, with random weights.
    recipe = facts.get("network") or network_recipe(settings, DataShape.of(cache))
    torch.manual_seed(settings.seed)
    network = build_network(recipe)

    # 5. The run folder, and the loop in it.
    with run.claimed(data.name, processes) as folder:
        previews = Previews(data.task, settings, cache, models, prompts, folder / "previews")
        trainer = Trainer(network, cache, settings, folder, processes=processes)
        trainer.fit()


if __name__ == "__main__":
    sys.exit(guarded(main))
