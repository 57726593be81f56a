"""A task made of two: the labels of i-CLEVR, and outlines to follow, for a ControlNet.

    python train.py --from RUN --controlnet --data iclevr \\
           --task docs.examples.outlined_labels:OutlinedLabels --out runs/control
    python sample.py --run runs/control --prompt "PICTURE.png | red cube, cyan sphere"

RUN was trained with --task labels. A ControlNet is told what its base is told, and maps besides:
here labels as the library's own task has them, and the outlines of the picture that a prompt names.
"""

from tinyldm.tasks.labels import LabelEncoder, LabelFacts, LabelTask
from tinyldm.tasks.outline import GRAIN, OutlineEncoder, with_outlines
from tinyldm.tasks.pictures import PictureTask

LABELS = LabelTask()


class OutlinedLabelEncoder(OutlineEncoder):
    """Sketches whose captions list labels -> the Condition of the labels, with maps added."""

    def __init__(self, labels: LabelEncoder, area: tuple[int, int]):
        self.labels, self.area, self.width = labels, area, labels.width
        self.map_size = (GRAIN * area[0], GRAIN * area[1])
        self.fingerprint = f"outlined {labels.fingerprint}"

    def get_ready(self):
        """There is no text encoder to load."""

    def stored(self, prompts):
        """A token for each label, which the latent cache keeps."""
        return self.labels.stored(self.keys(prompts))  # a key is the caption alone

    def tokens(self, stored):
        """The labels in the form that the base expects."""
        return self.labels.finish(stored, None, None)

    def check(self, prompts):
        """InputError for an unknown label, or a picture that cannot be read."""
        self.labels.check(self.keys(prompts))
        return super().check(prompts)


class OutlinedLabels(PictureTask):
    """Labelled pictures, each of which is its own sketch."""

    name = "docs.examples.outlined_labels:OutlinedLabels"
    options, facts = LABELS.options, LabelFacts
    layouts = tuple(with_outlines(layout) for layout in LABELS.layouts)

    def names(self, folder):
        return LABELS.names(folder)

    def recipe(self, native, given):
        return LABELS.recipe(native, given)

    def conditioning(self, settings, names):
        return LABELS.conditioning(settings, names)

    def encoder(self, facts, area, device):
        return OutlinedLabelEncoder(LABELS.encoder(facts, area, device), area)
