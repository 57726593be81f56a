"""python -m tinyldm toy: draw the toy monsters; retrain the tiny CLIP and the tiny VAE.

Drawing belongs to the package. The scripts that made the two frozen models are in the repository's
docs/assets and not in the wheel, so those parts work only from a clone.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tinyldm.cli import SEED, STEPS, Parser, whole
from tinyldm.errors import InputError, say
from tinyldm.files import naming

SCRIPTS = Path(__file__).parents[2] / "docs" / "assets"


def add_arguments(parser: Parser) -> None:
    """The parts of the command and their options."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    text = "draw the toy monsters in the format of the monster assignment"
    draw = parts.add_parser("draw", help=text, description=text)
    draw.add_argument("--out", type=Path, required=True, help="the folder to write")
    draw.add_argument("--seed", type=SEED, default=0, help="seed of drawings and descriptions")
    draw.add_argument("--overwrite", action="store_true", help="replace an existing toy set")

    text = (
        "train the tiny CLIP on captioned pictures that it draws itself (from a clone of the "
        "repository; about half a second per step on one core)"
    )
    clip = parts.add_parser("clip", help=text, description=text)
    clip.add_argument("--out", type=Path, required=True, help="the folder to write")
    clip.add_argument("--steps", type=STEPS, default=2500, help="optimiser steps")
    clip.add_argument("--batch-size", type=whole(2, 2**16), default=80, help="pictures per step")
    clip.add_argument("--seed", type=SEED, default=0, help="seed of weights, pictures and captions")
    clip.add_argument(
        "--overwrite", action="store_true", help="write into a folder that is not empty"
    )

    text = (
        "train the tiny VAE on pictures that it draws itself (from a clone of the repository; "
        "about a third of a second per step on one core)"
    )
    vae = parts.add_parser("vae", help=text, description=text)
    vae.add_argument("--out", type=Path, required=True, help="the folder to write")
    vae.add_argument("--steps", type=STEPS, default=5000, help="optimiser steps")
    vae.add_argument("--seed", type=SEED, default=0, help="seed of weights and pictures")
    vae.add_argument(
        "--overwrite", action="store_true", help="write into a folder that is not empty"
    )

    text = (
        "measure a CLIP on fresh pictures and on monsters that it was not trained on (from a clone "
        "of the repository)"
    )
    score = parts.add_parser("score-clip", help=text, description=text)
    score.add_argument(
        "--clip", default="tiny", help="a CLIP folder, or the tiny one that ships in the package"
    )
    score.add_argument("--seed", type=SEED, default=1, help="seed of the pictures")


def run(options: Namespace) -> None:
    """Run the part asked for."""
    PARTS[options.part](options)


def draw(options: Namespace) -> None:
    """Write the toy set."""
    from tinyldm.toy.monsters import write_toy

    with naming(options.out):
        write_toy(options.out, seed=options.seed, overwrite=options.overwrite)
    say(f"wrote {options.out}")


def clip(options: Namespace) -> None:
    """Train a tiny CLIP and measure it."""
    train_clip = script("train_clip")
    train_clip.train_clip(
        options.out,
        options.steps,
        seed=options.seed,
        batch_size=options.batch_size,
        overwrite=options.overwrite,
    )
    show(train_clip.score_clip(options.out))


def score_clip(options: Namespace) -> None:
    """Measure a CLIP."""
    show(script("train_clip").score_clip(options.clip, seed=options.seed))


def vae(options: Namespace) -> None:
    """Train a tiny VAE, which measures itself on the way."""
    from tinyldm.folders import check_free, owned
    from tinyldm.stage_one.progress import AUTOENCODER

    train_vae = script("train_vae")
    check_free(options.out, AUTOENCODER, options.overwrite)
    with owned(options.out, AUTOENCODER, "--out"):
        train_vae.train_tiny(options.out, options.steps, options.seed)
    for line in (options.out / "scores.csv").read_text(encoding="utf-8").splitlines():
        say(line)


def script(name: str) -> ModuleType:
    """A script of docs/assets as a module; InputError where it is not there, as with a wheel."""
    if not (SCRIPTS / f"{name}.py").is_file():
        raise InputError(
            f"{name}.py is not installed: it is in docs/assets of the repository, whose clone this "
            "command has to be run from"
        )
    if str(SCRIPTS) not in sys.path:
        sys.path.insert(0, str(SCRIPTS))  # scripts also import each other
    return import_module(name)


def show(scores: dict[str, float]) -> None:
    """Print scores, one a line."""
    for name, score in scores.items():
        say(f"{name:>20}  {score:.3f}")


PARTS = {"draw": draw, "clip": clip, "score-clip": score_clip, "vae": vae}
