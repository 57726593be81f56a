"""Train a latent-diffusion model: python train.py --cfg-drop 0.1"""

import sys

from tinyldm.cli import guarded


def main():
    from tinyldm.training.options import train_parser

    given = vars(train_parser().parse_args())
    from tinyldm.pages.report import after_save
    from tinyldm.training.start import start

    start(given, report=after_save)


if __name__ == "__main__":
    sys.exit(guarded(main))
