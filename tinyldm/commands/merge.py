"""python -m tinyldm merge: a run of train.py --lora and its base become one ordinary run."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinyldm.cli import real
from tinyldm.errors import InputError, say
from tinyldm.folders import is_empty, whole_folder
from tinyldm.installation import called


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, what to write, and how much of the factors counts."""
    parser.add_argument("source", type=Path, help="a run of train.py --lora, or a checkpoint of it")
    parser.add_argument(
        "--out", type=Path, required=True, help="the run to write, which must not exist yet"
    )
    parser.add_argument(
        "--base", type=Path, help="where the run is now that was adapted (default: where it was)"
    )
    parser.add_argument(
        "--scale", type=real(-1000, 1000), default=1.0, help="how much of the factors counts"
    )


def run(options: argparse.Namespace) -> None:
    """Write a run of one checkpoint with the weights W + scale (alpha / r) B A, to draw with."""
    from tinyldm.training.adapters import Recipe
    from tinyldm.training.checkpoint import load_checkpoint, save_checkpoint
    from tinyldm.training.run import RUN
    from tinyldm.training.statistics import stored_latents

    source, out = options.source, options.out
    if out.exists() and not is_empty(out):
        raise InputError(f"--out {out}: exists already; expected a new folder")
    merged = load_checkpoint(source, base=options.base, scale=options.scale)
    config = dict(merged.config)
    if "base" not in config or "lora" not in config["network"]:
        raise InputError(f"{source}: expected a run of {called('train.py')} --lora")
    del config["base"]
    config["network"] = Recipe.read(config["network"], merged.config.file).base
    config["settings"] = {
        **config["settings"],
        "lora": 0,
        "lora_alpha": None,
        "lora_layers": "attention",
    }
    latents = stored_latents(merged.mean, merged.std, merged.null)
    weights = {"model": merged.network.state_dict(), "latents": latents}
    with whole_folder(out, RUN) as draft:
        save_checkpoint(draft / "checkpoints" / merged.path.name, config, weights)
    say(f"{source} and its base are now {out}")
