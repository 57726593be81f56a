"""A Task is everything that differs between assignments, in one object.

Its Encoder turns prompts into a Condition; its Judge scores its pictures. To add an assignment,
derive a class from Task in a module of your own and train with `--task my_module:MyTask`;
docs/examples/new_task.py is one. Nothing outside tasks/ asks which task it is working for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tinyldm.cli import flag_of, load_object
from tinyldm.data.examples import Example, Examples, Layout, Prompt, Request, read_layout
from tinyldm.errors import InputError
from tinyldm.spelling import nearest
from tinyldm.tasks.prompt_files import read_request_file

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from tinyldm.condition import Condition
    from tinyldm.diffusion.guidance import Guidance
    from tinyldm.diffusion.schedule import NoiseSchedule
    from tinyldm.methods.composition import StepwiseGuidance
    from tinyldm.sampling.settings import Drawing
    from tinyldm.training.settings import TrainSettings

__all__ = [
    "Encoder",
    "Example",
    "Examples",
    "Judge",
    "Layout",
    "Prompt",
    "Request",
    "Task",
    "find_task",
    "read_examples",
    "read_requests",
    "tasks",
]


class Encoder(ABC):
    """Turns prompts into a Condition, in two steps, so that the latent cache can keep the slow one.

    stored() is slow, and its tokens are kept on disk; finish() is quick, and runs for every batch.
    An encoder whose prompts hold maps sets map_size. The cache then keeps the maps as well,
    mirrored and cropped as their images are, and passes them to finish().

    fingerprint: a hash of all that decides the conditions, so that equal ones give equal conditions
    width:       of the stored tokens
    map_size:    (h, w) at which maps are kept; None: there are none
    map_mode:    "P" for numbers of classes; "L" or "RGB" for pictures of that mode of Pillow's,
                 which are resized as pictures are, and in copies change their colours with them
    """

    fingerprint: str
    width: int
    map_size: tuple[int, int] | None = None
    map_mode: str = "P"

    @property
    def former_fingerprint(self) -> str | None:
        """What an earlier version of the library recorded as the fingerprint, if it was another."""
        return None

    def answer_to(self, recorded: str) -> bool:
        """Whether a run that recorded this fingerprint was trained with this encoder.

        Where an earlier version recorded it, this becomes the encoder's fingerprint: such a run
        finds its cache, and what it records further agrees with what it has recorded.
        """
        if recorded != self.fingerprint and recorded == self.former_fingerprint:
            self.fingerprint = recorded
        return recorded == self.fingerprint

    def get_ready(self) -> None:
        """Load now what is otherwise loaded when the first prompt is encoded.

        With a warm cache, a training encodes none before its first preview.
        """
        return None

    @abstractmethod
    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """The part to keep: tokens (b, n, width) and a mask. It has to work for `empty` as well."""

    @property
    def empty(self) -> Prompt:
        """The prompt that asks for nothing; its Condition is the null condition."""
        return ""

    def finish(
        self, stored: Condition, maps: Tensor | None, generator: torch.Generator | None
    ) -> Condition:
        """What the network is told, made from stored rows.

        maps:      uint8 (b, *map_size), for RGB (b, *map_size, 3); None for the null condition
        generator: draws what is dropped in training; None drops nothing
        """
        return stored

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Prompts -> the whole Condition, for sampling; a single text is a batch of one."""
        return self.finish(self.stored(as_batch(prompts)), None, None)

    def keys(self, prompts: Sequence[Prompt]) -> list[str]:
        """What decides each prompt's stored tokens: its text, or a hash of the file it names."""
        return [str(prompt) for prompt in prompts]

    def words(self, prompt: Prompt) -> list[tuple[str, list[int]]]:
        """The words of a prompt, each with the places of its tokens in the Condition.

        Empty where a prompt has no words, or the network is told them in another form.
        """
        return []

    def map_file(self, prompt: Prompt) -> Path:
        """The file of a prompt's map. Called only if map_size is set."""
        raise NotImplementedError(f"{type(self).__name__} has a map_size but no map_file()")

    def read_map(self, prompt: Prompt, image: Path | None = None) -> Image:
        """A prompt's map, as large as its image. Called only if map_size is set."""
        raise NotImplementedError(f"{type(self).__name__} has a map_size but no read_map()")

    def check(self, prompts: Sequence[Prompt]) -> str | None:
        """InputError for a prompt that cannot be encoded.

        Returns a hash of the files that the prompts name, None where they name none.
        """
        return None


def as_batch(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """The prompts; a single text is one prompt, and no sequence of letters."""
    return [prompts] if isinstance(prompts, str) else prompts


def no_tokens(b: int, width: int = 1) -> Condition:
    """What is stored of b prompts that have no tokens: one for each, zero and masked."""
    import torch

    from tinyldm.condition import Condition

    return Condition(torch.zeros(b, 1, width), torch.zeros(b, 1, dtype=torch.bool))


@dataclass(frozen=True)
class Judge:
    """How pictures are judged: by a small network that reads off a picture what it shows.

    network: number of names -> a module, images (b, 3, h, w) in [-1, 1] -> logits
    loss:    (logits, truth) -> scalar
    truth:   (prompts, (h, w), images) -> what a perfect network would read off such pictures;
             images: their files in training, None when drawn pictures are judged
    scores:  name -> (logits, truth) -> number; the first is the headline
    names:   of the labels or classes, in the order of the logits
    steps, batch_size: of a training that is long enough
    """

    network: Callable[[int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    truth: Callable[[Sequence[Any], tuple[int, int], Sequence[Path] | None], Tensor]
    scores: Mapping[str, Callable[[Tensor, Tensor], float]]
    names: tuple[str, ...]
    steps: int = 2500
    batch_size: int = 64


class Task(ABC):
    """One assignment: how its folder is read, what its prompts are, which settings suit it.

    name:         what --task calls it, and what a checkpoint records
    layouts:      the folders that it recognises
    prompt_files: names that the file of test prompts may have in a data folder
    options:      settings of train.py that belong to this task; other tasks refuse them
    facts:        the type of what conditioning() says, for the reader of checkpoints
    captions:     whether prompts are sentences, which CLIP can compare with pictures
    guides_style: whether --guidance-style can guide a style separately
    named_only:   whether --task has to name it, since it reads other tasks' folders too
    prompted:     whether prompts say what a picture shows; else it is drawn without one
    repeats:      whether previews show each of few prompts several times
    """

    name: ClassVar[str]
    layouts: ClassVar[tuple[Layout, ...]]
    prompt_files: ClassVar[tuple[str, ...]] = ("test.json", "generate.csv")
    options: ClassVar[frozenset[str]] = frozenset()
    facts: ClassVar[Any] = dict[str, Any]
    captions: ClassVar[bool] = False
    guides_style: ClassVar[bool] = False
    named_only: ClassVar[bool] = False
    prompted: ClassVar[bool] = True
    repeats: ClassVar[bool] = False

    # ---- prompts

    def prompt(self, text: str, folder: Path = Path()) -> Prompt:
        """The prompt that a text stands for; paths in it are relative to the folder."""
        return text

    def text(self, prompt: Prompt, folder: Path = Path()) -> str:
        """The inverse of prompt(): the text of a prompt, with paths relative to the folder."""
        return str(prompt)

    def requests(self, file: Path) -> list[Request]:
        """The requests in a file of prompts: .txt (one per line), test.json or generate.csv."""
        return read_request_file(file, self.prompt)

    def reads(self, file: Path) -> bool:
        """Whether a file of prompts is in a format that only this task has."""
        return False

    def size_handed_in(self, file: Path) -> tuple[int, int] | None:
        """(h, w) of the pictures that the assignment of a file of prompts asks for, if known."""
        return None

    def previewed(self, prompts: Sequence[Prompt], count: int) -> list[Prompt]:
        """At most `count` of the prompts, distinct ones, evenly spread; see `repeats`."""
        distinct = list(dict.fromkeys(prompts))
        if self.repeats:
            distinct = [each for each in distinct for _ in range(max(1, count // len(distinct)))]
        return distinct[:: max(1, len(distinct) // count)][:count]

    # ---- training

    def names(self, folder: Path) -> tuple[str, ...]:
        """The names of the labels or classes that a data folder uses, if it has any."""
        return ()

    @abstractmethod
    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of train.py for data of this task; options given take precedence.

        native: (h, w) of the first image
        given:  the options given, by the names of their settings
        """

    @abstractmethod
    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """What encoder() needs to know, as plain values for the checkpoint."""

    @abstractmethod
    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The encoder that conditioning() described, for latents of an area (h, w)."""

    # ---- sampling and judging

    def guidance(
        self, how: Drawing, null: Condition, schedule: NoiseSchedule
    ) -> Guidance | StepwiseGuidance | None:
        """What the guidance options ask for; None to use the conditional model as it is."""
        from tinyldm.diffusion.guidance import Guidance

        if how.guidance == 1 and how.guide is None:
            return None
        return Guidance(
            how.guidance,
            null,
            rescale=how.rescale,
            interval=how.interval,
            schedule=schedule if how.interval else None,
        )

    def judge(self, names: tuple[str, ...]) -> Judge | None:
        """What judges this task's pictures besides CLIP and Inception, or None."""
        return None

    # ---- options

    def check_options(self, given: Mapping[str, Any]) -> None:
        """InputError for an option given that belongs to another task."""
        for other in tasks():
            for name in other.options - self.options:
                if name in given:
                    raise InputError(
                        f"{flag_of(name)} {given[name]}: belongs to --task {other.name}, "
                        f"this is {self.name}"
                    )


TASKS = {
    "text": "tinyldm.tasks.text:TextTask",
    "labels": "tinyldm.tasks.labels:LabelTask",
    "landscape": "tinyldm.tasks.landscape:LandscapeTask",
    "classes": "tinyldm.tasks.uncaptioned:ClassTask",
    "unconditional": "tinyldm.tasks.uncaptioned:UnconditionalTask",
    "outline": "tinyldm.tasks.outline:OutlineTask",
    "super-resolution": "tinyldm.tasks.super_resolution:SuperResolutionTask",
}


def find_task(name: str) -> Task:
    """The task of that name: one of TASKS, or the class that "my_module:MyTask" stands for."""
    if name not in TASKS and ":" not in name:
        known = f"expected {', '.join(TASKS)} or my_module:MyTask"
        raise InputError(f"--task {name}: {known}{nearest(name, TASKS)}")
    found = load_object(TASKS.get(name, name), "--task")
    if not isinstance(found, type) or not issubclass(found, Task):
        raise InputError(f"--task {name}: not a class derived from tinyldm.tasks.base.Task")
    try:
        return found()
    except TypeError as error:  # a method that every task has to have is missing
        raise InputError(f"--task {name}: {error}") from None


def tasks() -> list[Task]:
    """The tasks that come with the library."""
    return [find_task(name) for name in TASKS]


def read_examples(
    folder: str | Path,
    split: str = "train",
    skip_bad: bool = False,
    task: str | None = None,
    hold_out: float = 0.0,
) -> tuple[Task, Examples]:
    """The task of a data folder, detected from its files unless named, and its examples.

    hold_out: a share of the examples to set apart
    InputError: see read_layout; or the folder belongs to another task than the one named.
    """
    folder = Path(folder).expanduser()
    known = [each for each in tasks() if not each.named_only]
    asked: tuple[Layout, ...] = ()
    if task is not None:
        named = find_task(task)
        others = [each for each in known if each.name != task] if task in TASKS else []
        known = [named, *others]
        asked = named.layouts  # it may read folders that are otherwise another's
    layouts = [layout for each in known for layout in each.layouts]
    examples = read_layout(folder, layouts, split, skip_bad, asked=asked)
    found = next(each for each in known if examples.layout in each.layouts)
    if task in TASKS and task != found.name:
        raise InputError(
            f"--task {task}: {folder} is for --task {found.name} ({examples.layout.description})"
        )
    return found, replace(examples, names=found.names(folder)).hold_out(hold_out)


def task_of_prompts(file: Path) -> Task:
    """The task that a file of prompts is for, as its format tells."""
    return next((each for each in tasks() if each.reads(file)), find_task("text"))


def read_requests(file: str | Path, task: Task | None = None) -> list[Request]:
    """The requests in a file of prompts. Without a task, the format of the file tells it."""
    file = Path(file)
    return (task or task_of_prompts(file)).requests(file)
