"""python -m tinyldm COMMAND, or where the package is installed, tinyldm COMMAND."""

import sys
from pathlib import Path

from tinyldm.cli import dispatch
from tinyldm.signals import leave

STORIES = {  # python train.py and python sample.py, called as the other commands are
    "train": "train a latent-diffusion model",
    "sample": "draw pictures from prompts with a trained run",
}
COMMANDS = {  # each lives in tinyldm/commands/NAME.py
    "toy": "draw the toy monsters; retrain the tiny VAE and the tiny CLIP that ship",
    "encode": "build the latent cache of a data folder without training",
    "evaluator": "train a network that judges pictures, on an assignment's real images",
    "landscapes": "draw landscapes with their maps, in the format of the landscape assignment",
    "vae": "stage one: train your own autoencoder on a folder of images",
    "convert": "turn a run into a folder for diffusers, or such a folder into a run",
    "merge": "make an ordinary run of one that train.py --lora has made, and its base",
    "sweep": "draw and score a grid of checkpoints, guidance scales, steps and solvers",
    "grid": "fit the levels that few steps visit to a run, its solver and guidance",
    "submit": "check a folder of images against an assignment's prompts, and zip it",
    "picture": "draw the previews, the loss, or the training images that are nearest to samples",
    "play": "a page in the browser: draw with a run, watch every step, compare two settings",
    "exercise": "write the library with blank functions for students, and a grader",
    "report": "rewrite report.html of a run",
    "evaluate": "score generated images, or an autoencoder's reconstructions",
}


def main() -> None:
    """What the command `tinyldm` runs, and `python -m tinyldm`."""
    as_module = Path(sys.argv[0]).name == "__main__.py"
    leave(dispatch(STORIES | COMMANDS, prog="python -m tinyldm" if as_module else "tinyldm"))


if __name__ == "__main__":
    main()
