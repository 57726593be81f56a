"""From the options of train.py to a run: data, frozen models, latent cache, run folder, training."""

from __future__ import annotations

import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path
from shlex import quote

from tinyldm.commands.encode import load_frozen, native_size, open_cache, read_data
from tinyldm.data.images import grid
from tinyldm.device import describe, pick_device
from tinyldm.errors import InputError
from tinyldm.files import locked, naming
from tinyldm.nn.presets import PRESETS
from tinyldm.sampling.drawing import Drawing, draw, encode_prompts, noise_seed
from tinyldm.tasks.table import condition_facts, read_prompts
from tinyldm.training.checkpoint import checkpoints, find_checkpoint, latest_run, read_config
from tinyldm.training.processes import Workers, workers
from tinyldm.training.settings import TrainSettings, defaults_for
from tinyldm.training.signals import stop_on_signal
from tinyldm.training.trainer import Trainer

PREVIEWS = 16
PROMPT_NAMES = (
    "test.json",
    "generate.csv",
    "label_to_img.json",
)  # test prompts in a data folder, by assignment


def start(given: dict, report=None) -> None:
    """Run train.py with the options that were given, by name; others take their defaults.

    report: called with the run folder after each checkpoint, in the main process
    """
    given = dict(given)
    resume, overwrite = given.pop("resume", False), given.pop("overwrite", False)
    out, epochs = given.pop("out", None), given.pop("epochs", None)
    if overwrite and (resume or out is None):
        raise InputError("--overwrite: expected --out beside it and no --resume")
    if epochs is not None and (epochs < 1 or "max_steps" in given):
        raise InputError(f"--epochs {epochs}: expected 1 or more, and no --max-steps beside it")
    run = None if out is None and not resume else Path(out) if out else latest_run()
    saved = _check_run(run, resume, overwrite)
    with workers(pick_device(given.get("device", "auto"))) as w:
        settings = TrainSettings.from_dict(saved["settings"]).resumed(given) if saved else None
        with w.main_first():
            folder, examples = (
                read_data(settings.to_dict(), settings.task)
                if saved
                else read_data(given, given.pop("task", None))
            )
        if settings is None:
            settings = defaults_for(given, native_size(examples), examples.task)
        if epochs is not None:
            settings = replace(
                settings, max_steps=ceil(epochs * len(examples) / settings.batch_size)
            )
        if saved and settings.max_steps < saved["step"]:
            raise InputError(
                f"--max-steps {settings.max_steps}: {run} has {saved['step']} steps already"
            )
        if settings.perceptual_from >= settings.max_steps:
            raise InputError(
                f"--perceptual-from {settings.perceptual_from}: expected less than {settings.max_steps}, all steps"
            )
        trainer = _prepare(settings, examples, folder, w, saved)
        if w.is_main and run is None:
            run = _free_folder(
                Path("runs"), "toy" if settings.data is None else folder.resolve().name
            )
        trainer.run, trainer.report = run, report
        with _claimed(run, resume, overwrite) if w.is_main else nullcontext():
            if saved:
                trainer.restore(find_checkpoint(run))
            _fit(trainer, w)


@contextmanager
def _claimed(run: Path, resume: bool, overwrite: bool):
    """Make the run folder, or empty it of what a run leaves, and keep other processes from training there."""
    _check_run(run, resume, overwrite)  # once more: the latent cache may have taken hours
    run.mkdir(parents=True, exist_ok=True)
    with locked(run / ".lock", busy=f"{run}: another process is training there"):
        for name in ("checkpoints", "previews", "sweep", "tensorboard") if overwrite else ():
            if (run / name).exists():
                shutil.rmtree(run / name)
        yield


def _check_run(run: Path | None, resume: bool, overwrite: bool) -> dict | None:
    """The config of the run to resume, or None for a new one, which must not be there yet unless overwritten."""
    if resume:
        newest = find_checkpoint(run)
        if newest == run or not (newest / "training.safetensors").is_file():
            raise InputError(
                f"{newest}: can't be resumed; expected a run whose newest checkpoint has training.safetensors"
            )
        return read_config(newest)
    if (
        run is not None
        and run.exists()
        and not (run.is_dir() and all(p.name == ".lock" for p in run.iterdir()))
    ):
        if not overwrite:
            raise InputError(
                f"--out {run}: exists already; expected a new folder, --resume or --overwrite"
            )
        if not (run / "log.csv").is_file() and not checkpoints(run):
            raise InputError(
                f"--out {run}: is no run folder, so --overwrite leaves it alone; expected another --out"
            )
    return None


def _prepare(
    settings: TrainSettings, examples, folder: Path, w: Workers, saved: dict | None
) -> Trainer:
    """Frozen models, latent cache and trainer, all as saved says if it does; the run folder is set later."""
    s = settings
    if s.preset not in PRESETS:
        raise InputError(f"--preset {s.preset}: expected one of {', '.join(PRESETS)}")
    prompts, condition = preview_prompts(folder, examples), condition_facts(s, examples)
    vae, text_encoder = load_frozen(
        saved or s.to_dict() | {"condition": condition}, w.device, "the run"
    )
    with w.main_first():
        cache = open_cache(s, examples, vae, text_encoder, w.device, progress=w.is_main)
    if saved and saved.get("data", cache.key) != cache.key:
        raise InputError(
            f"{folder}: images or captions are not those that the run was trained on; start another with --out"
        )
    facts = {
        "data": cache.key,
        "vae": s.vae,
        "vae_fingerprint": vae.fingerprint,
        "text_encoder": s.text_encoder,
        "text_encoder_fingerprint": text_encoder.fingerprint,
        "size": list(s.size),
        "condition": condition,
        "latent_shape": [cache.mean.shape[0], *(side // vae.factor for side in s.size)],
        "preview_prompts": prompts,
        "machine": describe(w.device, w.world),
    }
    condition = encode_prompts(text_encoder, prompts)

    def preview(trainer: Trainer, step: int):
        images = draw(
            trainer.ema.network,
            condition,
            [noise_seed(s.seed, k) for k in range(len(prompts))],
            latent_shape=facts["latent_shape"],
            schedule=trainer.schedule,
            prediction=s.prediction,
            mean=cache.mean,
            std=cache.std,
            null=cache.null,
            vae=vae,
            how=Drawing(
                steps=20, guidance=s.preview_guidance if s.cfg_drop else 1, precision=s.precision
            ),
        )
        file = trainer.run / "previews" / f"step-{step:07d}.png"
        with naming(file):
            file.parent.mkdir(exist_ok=True)
            grid(images).save(file)

    return Trainer(s, cache, Path(), w, facts, preview, vae)


def preview_prompts(folder: Path, examples) -> list[str]:
    """Prompts to watch the training by: of the data's test.json if it has one, else captions spread over the data."""
    files = (
        folder.resolve() / name for name in PROMPT_NAMES
    )  # whole paths, for landscapes have them in their texts
    file = next((file for file in files if file.is_file()), None)
    texts = (
        [prompt.text for prompt in read_prompts(file)]
        if file
        else [example.captions[0] for example in examples]
    )
    texts = list(dict.fromkeys(texts))
    return texts[:: max(1, len(texts) // PREVIEWS)][:PREVIEWS]


def _free_folder(root: Path, name: str) -> Path:
    """root/name-N with the first N whose folder could be made."""
    root.mkdir(exist_ok=True)
    for n in count(1):
        try:
            (root / f"{name}-{n}").mkdir()
            return root / f"{name}-{n}"
        except FileExistsError:
            continue


def _fit(trainer: Trainer, w: Workers) -> None:
    """Train, and tell where the run is and what to do next."""
    s, network = trainer.settings, trainer.network
    if w.is_main:
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        for line in trainer.cache.left_out[:5]:
            print(f"left out: {line}")
        print(
            f"{trainer.run}: {s.preset} network of {millions:.1f}M parameters, {len(trainer.cache)} images "
            f"({trainer.cache.skipped} left out), "
            f"batch {s.batch_size}, steps {trainer.progress.step} to {s.max_steps}, on {w.device}",
            flush=True,
        )
    with stop_on_signal() as stop:
        complete = trainer.fit(stop)
    if w.is_main and complete:
        print(
            f"{trainer.run}: trained; draw with: python sample.py --run {quote(str(trainer.run))}"
        )
    elif w.is_main:
        print(
            f"{trainer.run}: stopped at step {trainer.progress.step}; go on with: "
            f"python train.py --resume --out {quote(str(trainer.run))}"
        )
    if not complete:
        raise KeyboardInterrupt
