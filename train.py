"""Train a latent-diffusion model: python train.py --cfg-drop 0.1"""

import sys

from tinyldm.jobs.cli import guarded
from tinyldm.jobs.options import train_parser


def main():
    given = vars(train_parser().parse_args())
    from tinyldm.jobs.start import start  # here, so that --help need not wait for torch

    start(given)


if __name__ == "__main__":
    sys.exit(guarded(main))
