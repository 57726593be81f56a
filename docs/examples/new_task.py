"""A task and an encoder of your own: a picture belongs to a class, which is its folder.

    python train.py --task docs.examples.new_task:ClassTask --data FOLDER
    python sample.py --prompt cat --prompt dog

FOLDER/cat/*.png, FOLDER/dog/*.png, ... A prompt is the name of a class, and the network is told a
vector (b, classes) that is 1 at its place and 0 elsewhere.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tinyldm import Condition
from tinyldm.data.examples import Example, Layout, images_in
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, Task
from tinyldm.tasks.recipes import SMALL


def classes_in(folder: Path) -> tuple[str, ...]:
    """The names of the subfolders that hold images, in alphabetical order."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and images_in(p)))


def read_classes(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """An example for each image of each class. Such a folder is for training only."""
    if split != "train":
        raise InputError(f"{folder}: has no split {split!r}, expected train")
    names = classes_in(folder)
    return [Example(image, (name,)) for name in names for image in images_in(folder / name)]


class ClassEncoder(Encoder):
    """Names of classes -> Condition.vector (b, classes); all zeros ask for nothing."""

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.width = len(self.names)
        self.fingerprint = f"classes {self.names}"

    def stored(self, prompts):
        """One token for each prompt, (b, 1, classes): the latent cache keeps tokens."""
        rows = [[float(name == str(prompt)) for name in self.names] for prompt in prompts]
        return Condition(tokens=torch.tensor(rows)[:, None])

    def finish(self, stored, maps, generator):
        """The token as a vector."""
        return Condition(vector=stored.tokens[:, 0])

    def check(self, prompts):
        """InputError for a class that was not in training."""
        for prompt in prompts:
            if prompt not in self.names:
                raise InputError(f"no class {prompt!r}, expected one of {', '.join(self.names)}")


class ClassTask(Task):
    """Pictures in a folder for each class."""

    name = "docs.examples.new_task:ClassTask"
    layouts = (
        Layout("classes", "a folder for each class", lambda f: bool(classes_in(f)), read_classes),
    )

    def names(self, folder):
        return classes_in(folder)

    def recipe(self, native, given):
        """The small recipe at 64x64 pixels; what is given on the command line goes over it."""
        return {**SMALL, "vae": "tiny", "size": (64, 64)}

    def conditioning(self, settings, names):
        """For the checkpoint: the names, in the order of the vector."""
        return {"names": list(names)}

    def encoder(self, facts, area, device):
        return ClassEncoder(facts["names"])
