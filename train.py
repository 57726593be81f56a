"""Train a latent-diffusion model: python train.py --cfg-drop 0.1

The story of a training: data, frozen models, latent cache, network, trainer.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

from tinyldm.cli import guarded
from tinyldm.errors import say
from tinyldm.installation import called
from tinyldm.signals import leave
from tinyldm.training.options import parse_options

if TYPE_CHECKING:
    from pathlib import Path

    from tinyldm.processes import Processes
    from tinyldm.training.run import RunFolder
    from tinyldm.training.trainer import Trainer


def main() -> None:
    train(parse_options())  # --help answers here, before torch is imported


def train(options: dict[str, Any]) -> Path:
    """Train, and return the run. options: those that were given; all others have their defaults."""
    from tinyldm.device import pick_device
    from tinyldm.processes import joined
    from tinyldm.training.run import RunFolder

    run, given = RunFolder.asked(options)
    with joined(pick_device(given.get("device", "auto"))) as processes:
        return train_in(run, given, processes)


def train_in(run: RunFolder, given: dict[str, Any], processes: Processes) -> Path:
    """Train in a run folder, as the only process or as one of those that torchrun has started."""
    from tinyldm.autoencoder.perceptual import Perceptual
    from tinyldm.device import describe
    from tinyldm.pages.report import after_save
    from tinyldm.sampling.previews import Previews
    from tinyldm.toy.folder import data_folder
    from tinyldm.training.checkpoint import find_checkpoint
    from tinyldm.training.data import open_cache, read_data
    from tinyldm.training.frozen_models import load_frozen
    from tinyldm.training.start import start_of
    from tinyldm.training.trainer import Trainer

    # 1. The data, and the settings that follow from it and from the options.
    given = run.settings_given(given)
    start = start_of(run, given)
    given = given if run.saved else start.given(given)
    with processes.main_first():
        data = read_data(data_folder(given.get("data")), given)
    settings = data.settings(given, complete=bool(run.saved) or start.complete)
    settings = settings if run.saved else start.settings(settings, given)
    settings = run.of_length(settings, len(data.examples), processes)
    prompts = data.preview_prompts()

    # 2. The frozen models: an autoencoder, and what encodes the prompts.
    facts = data.facts(settings, prompts) | start.fingerprints
    models = load_frozen(run.saved or facts, processes.device, run.out or "the run")

    # 3. The latent cache: from here on, training sees neither images nor frozen models.
    cache = start.prepared(open_cache(settings, data.examples, models, processes))
    data = data.without_examples()
    run.check_data(data.folder, cache.key)

    # 4. The network, with random weights; or what tunes or adapts the network of another run.
    network, built = start.network(settings, cache, run.saved)

    # 5. The run folder, and the loop in it. The facts are for whoever samples from the checkpoints.
    facts |= {**built, "data": cache.key, "latent_shape": list(cache.shape)}
    facts |= {**models.fingerprints, "machine": describe(processes.device, processes.world)}
    with run.claimed(data.name(settings), processes) as folder:
        shown = Previews(settings, data.task, cache, models, prompts=prompts, processes=processes)
        trainer = Trainer(
            network,
            cache,
            settings,
            folder,
            facts=facts,
            processes=processes,
            perceptual=Perceptual(models.vae, cache.mean, cache.std),
            preview=shown.draw,
            report=after_save,
            check=cache.check_files,
            objective=start.objective(settings, processes.device),
        )
        if run.saved:
            trainer.restore(find_checkpoint(folder))
        run.clear_earlier(folder, processes, cache.check_files)
        fit(trainer)
    return folder


def fit(trainer: Trainer) -> None:
    """Train, and say where the run is and what to do next."""
    from tinyldm.signals import Stopped, stop_on_signal

    s = trainer.settings
    run = trainer.run
    cache = trainer.cache
    is_main = trainer.processes.is_main
    if is_main:
        for line in cache.left_out[:5]:
            say(f"left out: {line}")
        millions = sum(p.numel() for p in trainer.network.parameters()) / 1e6
        say(
            f"{run}: {s.kind_of_network} of {millions:.3g}M parameters, "
            f"{len(cache)} images ({len(cache.left_out)} left out), batch {s.batch_size}, "
            f"steps {trainer.progress.step} to {s.max_steps}, on {trainer.processes.device}"
        )
    with stop_on_signal() as stop:
        complete = trainer.fit(stop)
    place = quote(str(run))
    if not complete:
        if is_main:
            say(
                f"{run}: stopped at step {trainer.progress.step}; "
                f"go on with: {called('python train.py')} --resume --out {place}"
            )
        raise Stopped(stop.number)
    if is_main:
        say(f"{run}: trained; draw with: {called('python sample.py')} --run {place}")


if __name__ == "__main__":
    leave(guarded(main))
