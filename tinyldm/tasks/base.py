"""What differs between assignments, in one object: a Task, the prompts it reads and the Encoder that
turns them into a Condition.

To add an assignment, derive a class from Task in a module of your own and train with
`--task my_module:MyTask`; docs/examples/new_task.py is one. Nothing else in the library asks which
task it is working for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tinyldm.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from tinyldm.condition import Condition
    from tinyldm.diffusion.guidance import Guidance, StepwiseGuidance
    from tinyldm.diffusion.schedule import NoiseSchedule
    from tinyldm.sampling.settings import Drawing
    from tinyldm.training.settings import TrainSettings


class Prompt(Protocol):
    """What one picture is to show: a caption (a plain str), a set of labels, a map with a style.

    Equal prompts ask for the same picture. str(prompt) is what one would type on a command line.
    """

    def __str__(self) -> str: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Request:
    """A picture to draw: its file name, and what it is to show."""

    name: str
    prompt: Prompt

    @property
    def text(self) -> str:
        """The prompt as it would be typed."""
        return str(self.prompt)


@dataclass(frozen=True)
class Example:
    """A picture to learn from: its file, and the prompts that describe it. Training picks one at random."""

    image: Path
    prompts: tuple[Prompt, ...]

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return self.image.name


@dataclass(frozen=True)
class Layout:
    """A way in which a data folder may be laid out.

    name:        short, for records and messages
    description: what the folder holds, for the message that lists all known layouts
    detect:      whether a folder is laid out like this
    read:        (folder, split, problems) -> examples; a line is added to problems for each left out
    scene:       a regular expression; images whose names start with the same match show the same
                 thing and are held out together. None: each image stands for itself.
    """

    name: str
    description: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, str, list[str]], list[Example]]
    scene: str | None = None


@dataclass(frozen=True)
class Judge:
    """How a task's pictures are judged: by a small network that reads off them what they show.

    network: number of names -> a module, images (b, 3, h, w) in [-1, 1] -> logits
    loss:    (logits, truth) -> scalar
    truth:   (prompts, size (h, w), images) -> what a perfect network would read off such pictures;
             images: their files in training, None when drawn pictures are judged
    scores:  name -> (logits, truth) -> number; the first is the headline
    names:   of the labels or classes, in the order of the logits
    steps, batch_size: a training that suffices
    """

    network: Callable[[int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    truth: Callable[[Sequence[Any], tuple[int, int], Sequence[Path] | None], Tensor]
    scores: Mapping[str, Callable[[Tensor, Tensor], float]]
    names: tuple[str, ...]
    steps: int = 2500
    batch_size: int = 64


class Encoder(ABC):
    """Turns prompts into a Condition, in two steps, so that the latent cache can keep the slow one.

    stored() is slow and its tokens are kept on disk; finish() is quick and runs for every batch.
    An encoder whose prompts hold maps says so in map_size; the cache then keeps them as well, turned
    and cropped as the images are, and hands them to finish().
    """

    fingerprint: str  # equal fingerprints give equal conditions
    width: int  # of the stored tokens
    map_size: tuple[int, int] | None = None  # (h, w) at which maps are kept

    @abstractmethod
    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """The part to keep: tokens (b, n, width) with a mask. The empty prompt, "", has to work."""

    def finish(
        self, stored: Condition, maps: Tensor | None, generator: torch.Generator | None
    ) -> Condition:
        """What the network is told, from stored rows and their maps (b, *map_size) uint8.

        generator is None outside of training, where nothing is dropped or drawn at random.
        """
        return stored

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Prompts -> the whole Condition, for sampling."""
        return self.finish(self.stored(prompts), None, None)

    def keys(self, prompts: Sequence[Prompt]) -> list[str]:
        """What decides the stored tokens of each prompt: its text, or a hash of the file it names."""
        return [str(prompt) for prompt in prompts]

    def read_map(self, prompt: Prompt, image: Path) -> Image:
        """The map of a prompt, as large as its image. Asked for only where map_size is set."""
        raise NotImplementedError(f"{type(self).__name__} sets map_size but has no read_map")

    def map_file(self, prompt: Prompt) -> Path:
        """The file that holds the map of a prompt. Asked for only where map_size is set."""
        raise NotImplementedError(f"{type(self).__name__} sets map_size but has no map_file")

    def check(self, prompts: Sequence[Prompt]) -> str:
        """InputError for a prompt that cannot be encoded; a hash of the files that prompts name, or ""."""
        return ""


class Task(ABC):
    """One assignment: how its folder is read, what its prompts are, which settings suit it.

    name:         what --task calls it, and what a checkpoint records
    layouts:      the folders it recognises
    prompt_files: names under which a data folder may hold the test prompts
    options:      settings of train.py that belong to this task; other tasks refuse them
    """

    name: ClassVar[str]
    layouts: ClassVar[tuple[Layout, ...]]
    prompt_files: ClassVar[tuple[str, ...]] = ("test.json", "generate.csv")
    options: ClassVar[frozenset[str]] = frozenset()

    def prompt(self, text: str, folder: Path = Path()) -> Prompt:
        """The prompt that a text stands for; the paths in it start at the folder."""
        return text

    def text(self, prompt: Prompt, folder: Path = Path()) -> str:
        """The inverse of prompt(): the text of a prompt, with paths relative to the folder."""
        return str(prompt)

    def prompts(self, file: Path) -> list[Request]:
        """The requests in a file: .txt (a prompt a line), test.json or generate.csv."""
        from tinyldm.tasks.prompt_files import read_requests

        return read_requests(file, self.prompt)

    def reads(self, file: Path) -> bool:
        """Whether a file of prompts, met without a run, is of this task's own kind."""
        return False

    def names(self, folder: Path) -> tuple[str, ...]:
        """The names of the labels or classes that a data folder uses, if it has any."""
        return ()

    @abstractmethod
    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of train.py for data of this task.

        native: (h, w) of the first image; given: the options that were given, which come on top
        """

    @abstractmethod
    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """What encoder() needs to know, as plain values; a checkpoint records it."""

    @abstractmethod
    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The encoder that conditioning() described, for latents of an area (h, w)."""

    def guidance(
        self, how: Drawing, null: Condition, schedule: NoiseSchedule
    ) -> Guidance | StepwiseGuidance | None:
        """What --guidance and its kin ask for; None where the conditional model is used as it is."""
        from tinyldm.diffusion.guidance import Guidance

        if how.style is not None:
            raise InputError("--guidance-map, --guidance-style: for landscapes alone")
        if how.guidance == 1:
            return None
        levels = schedule if how.interval else None
        return Guidance(how.guidance, null, how.rescale, how.interval, levels)

    def judge(self, names: tuple[str, ...]) -> Judge | None:
        """What evaluates this task's pictures, besides CLIP and Inception; None: nothing does."""
        return None
