"""python -m tinyldm COMMAND: everything besides train.py and sample.py."""

import sys

from tinyldm.jobs.cli import dispatch

COMMANDS = {
    # name: (module with add_arguments(parser) and run(options), one line of help)
    "toy": ("tinyldm.jobs.toy", "draw the toy monsters; rebuild the tiny VAE and the tiny CLIP that ship in the package"),
    "encode": ("tinyldm.jobs.encoding", "build the latent cache of a data folder without training"),
    "evaluator": ("tinyldm.tasks.judge", "train the network that judges what was drawn, on an assignment's real images"),
    "landscapes": ("tinyldm.tasks.scenery", "draw landscapes with their maps, in the format of the landscape assignment"),
    "vae": ("tinyldm.stage_one.command", "stage one: train an autoencoder of one's own on a folder of images"),
    "convert": ("tinyldm.jobs.convert", "a run as a folder of diffusers, or such a folder as a run"),
    "sweep": ("tinyldm.pages.sweep", "draw and score a grid of checkpoints, guidance, steps and solvers"),
    "submit": ("tinyldm.pages.submit", "check a folder against what an assignment asks for, and zip it"),
    "picture": ("tinyldm.pages.pictures", "previews over the training, the loss, the nearest training images of samples"),
    "report": ("tinyldm.pages.report", "make report.html of a run anew"),
    "evaluate": ("tinyldm.jobs.evaluation", "score generated images, or an autoencoder's reconstructions"),
}

if __name__ == "__main__":
    sys.exit(dispatch(COMMANDS, prog="python -m tinyldm"))
