"""Train a latent-diffusion model: python train.py --cfg-drop 0.1"""

import sys

from tinyldm.jobs.cli import guarded


def main():
    from tinyldm.jobs.options import train_parser  # here, where Ctrl-C is caught: torch takes seconds to import

    given = vars(train_parser().parse_args())
    from tinyldm.jobs.start import start
    from tinyldm.pages.report import after_save

    start(given, report=after_save)


if __name__ == "__main__":
    sys.exit(guarded(main))
