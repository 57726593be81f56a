"""python -m tinyldm COMMAND: everything besides train.py and sample.py."""

import sys

from tinyldm.cli import dispatch

COMMANDS = {
    # name: (module with add_arguments(parser) and run(options), one line of help)
    "toy": (
        "tinyldm.commands.toy",
        "draw the toy monsters; rebuild the tiny VAE and the tiny CLIP that ship in the package",
    ),
    "encode": (
        "tinyldm.commands.encode",
        "build the latent cache of a data folder without training",
    ),
    "evaluator": (
        "tinyldm.commands.evaluator",
        "train the network that judges what was drawn, on an assignment's real images",
    ),
    "landscapes": (
        "tinyldm.commands.landscapes",
        "draw landscapes with their maps, in the format of the landscape assignment",
    ),
    "vae": (
        "tinyldm.commands.vae",
        "stage one: train an autoencoder of one's own on a folder of images",
    ),
    "convert": (
        "tinyldm.commands.convert",
        "a run as a folder of diffusers, or such a folder as a run",
    ),
    "sweep": (
        "tinyldm.commands.sweep",
        "draw and score a grid of checkpoints, guidance, steps and solvers",
    ),
    "submit": (
        "tinyldm.commands.submit",
        "check a folder against what an assignment asks for, and zip it",
    ),
    "picture": (
        "tinyldm.commands.picture",
        "previews over the training, the loss, the nearest training images of samples",
    ),
    "report": ("tinyldm.commands.report", "make report.html of a run anew"),
    "evaluate": (
        "tinyldm.commands.evaluate",
        "score generated images, or an autoencoder's reconstructions",
    ),
}

if __name__ == "__main__":
    sys.exit(dispatch(COMMANDS, prog="python -m tinyldm"))
