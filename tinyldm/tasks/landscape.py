"""The task "landscape": a map says where things are, a reference image how they look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinyldm.data.cache import key_of
from tinyldm.data.examples import Example, Layout, Prompt, Request, images_in
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder, Judge, Task, as_batch, no_tokens
from tinyldm.tasks.paths import BETWEEN, join_prompt, path_within, split_prompt
from tinyldm.tasks.prompt_files import checked
from tinyldm.tasks.recipes import FULL, LARGEST_SMALL, SMALL_LANDSCAPES
from tinyldm.tasks.segmentation import CLASSES, class_shares, load_map
from tinyldm.typed import Limits, read_json

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from tinyldm.condition import Condition
    from tinyldm.diffusion.guidance import Guidance
    from tinyldm.diffusion.schedule import NoiseSchedule
    from tinyldm.frozen.style import StyleEncoder, StyleEncoderOnDemand
    from tinyldm.methods.composition import StepwiseGuidance
    from tinyldm.sampling.settings import Drawing
    from tinyldm.training.settings import TrainSettings

GRAIN = 4  # a map is kept at so many times the latents' height and width
MAP_FOLDERS = (
    "val_B_labels_resized",
    "val_A_labels_resized",
    "labels",
    "train_resized/labels",
    ".",
)
IMAGE_FOLDERS = ("train_resized/imgs", "imgs", ".")
ASSIGNED = (384, 512)  # (h, w) of the assignment's pictures
LARGEST = 512  # pictures with more pixels a side are resized to those


@dataclass(frozen=True)
class Scene:
    """A prompt: a segmentation map and a reference image, either of which may be missing.

    map, reference: paths that start at the folder, or are absolute
    """

    map: str = ""
    reference: str = ""
    folder: Path = field(default=Path(), compare=False)

    @property
    def map_file(self) -> Path | None:
        """The file of the map."""
        return self.folder / self.map if self.map else None

    def has_map(self) -> bool:
        """Whether the file of the map is there."""
        return self.map_file is not None and self.map_file.is_file()

    @property
    def reference_file(self) -> Path | None:
        """The file of the reference image."""
        return self.folder / self.reference if self.reference else None

    def __str__(self) -> str:
        return join_prompt(self.map_file, self.reference_file)

    @classmethod
    def of(cls, prompt: Prompt, folder: Path = Path()) -> Scene:
        """The scene of a prompt, which may be given as text: "map.png | reference.jpg"."""
        if isinstance(prompt, Scene):
            return prompt
        return cls(*split_prompt(str(prompt)), folder)


# ---- prompts -> Condition


class LandscapeEncoder(Encoder):
    """Turns scenes into Conditions: maps (b, 29, *area), style tokens, the first also as vector.

    In training, the style of a sample is dropped with probability style_drop while its map is kept,
    so that the two can be guided separately.
    """

    def __init__(
        self,
        style: StyleEncoder | StyleEncoderOnDemand,
        area: tuple[int, int],
        style_drop: float = 0.0,
    ):
        self.style = style
        self.area = area
        self.style_drop = style_drop
        self.width = style.width
        self.map_size: tuple[int, int] = (GRAIN * area[0], GRAIN * area[1])
        self.fingerprint = key_of(("landscape", style.fingerprint, CLASSES))[:16]

    @property
    def former_fingerprint(self) -> str:
        """What the first versions recorded."""
        return key_of(("landscape", self.style.former_fingerprint, CLASSES))[:16]

    def get_ready(self) -> None:
        """Load the CLIP that sees the style."""
        from tinyldm.frozen.known import load_now

        load_now(self.style)

    @property
    def empty(self) -> Scene:
        """Neither map nor style."""
        return Scene()

    def stored(self, prompts: Sequence[Prompt]) -> Condition:
        """The tokens of the references; all masked where there is none."""
        import torch

        from tinyldm.condition import Condition
        from tinyldm.data.images import load_image

        files = [Scene.of(prompt).reference_file for prompt in prompts]
        there = [k for k, file in enumerate(files) if file is not None]
        if not there:
            return no_tokens(len(files), self.width)
        references = [load_image(file) for file in files if file is not None]
        found = self.style.encode(references).cpu()  # (number of references, n, width)
        tokens = found.new_zeros(len(files), *found.shape[1:])
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        tokens[there] = found
        mask[there] = True
        return Condition(tokens, mask)

    def finish(
        self, stored: Condition, maps: Tensor | None, generator: torch.Generator | None
    ) -> Condition:
        """The stored style, possibly dropped, and the share of each class in each cell."""
        import torch

        from tinyldm.condition import Condition

        tokens, mask = stored.tokens, stored.mask
        assert tokens is not None
        assert mask is not None
        if generator is not None:
            kept = torch.rand(len(tokens), 1, generator=generator) >= self.style_drop
            kept = kept.to(tokens.device)
            tokens, mask = tokens * kept[..., None], mask & kept
        if maps is None:
            cells = torch.zeros(len(tokens), len(CLASSES), *self.area, device=tokens.device)
        else:
            cells = class_shares(maps.to(tokens.device), self.area)
        return Condition(tokens, mask, vector=tokens[:, 0].clone(), maps=cells)

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Scenes -> maps and styles; InputError for a file that is missing or wrong."""
        import torch

        scenes = [Scene.of(prompt) for prompt in as_batch(prompts)]
        condition = self.finish(self.stored(scenes), None, None)
        cells = torch.zeros(len(scenes), len(CLASSES), *self.area)
        for k, scene in enumerate(scenes):
            if scene.map_file is not None:
                cells[k] = class_shares(self.kept_map(scene.map_file)[None], self.area)[0]
        return replace(condition, maps=cells)

    def kept_map(self, file: Path) -> Tensor:
        """The map in a file at the size at which the latent cache keeps maps, (h, w) uint8."""
        import numpy as np
        import torch

        from tinyldm.data.images import resize

        return torch.from_numpy(np.array(resize(load_map(file), self.map_size, nearest=True)))

    def keys(self, prompts: Sequence[Prompt]) -> list[str]:
        """A hash of each reference, of its content and not its place; "" where there is none."""
        from tinyldm.data.encode import file_hashes

        files = {prompt: Scene.of(prompt).reference_file for prompt in prompts}
        known = [file for file in files.values() if file is not None]
        hashes = dict(zip(known, file_hashes(known, workers=4, progress=False), strict=True))
        keys = []
        for prompt in prompts:
            file = files[prompt]
            keys.append("" if file is None else hashes[file] or str(prompt))
        return keys

    def map_file(self, prompt: Prompt) -> Path:
        """The file of the map."""
        file = Scene.of(prompt).map_file
        if file is None:
            raise InputError(
                f"{str(prompt)!r}: expected a segmentation map, or MAP {BETWEEN} REFERENCE"
            )
        return file

    def read_map(self, prompt: Prompt, image: Path | None = None) -> Image:
        """The map, which has to be as large as its image."""
        return load_map(self.map_file(prompt), image)

    def check(self, prompts: Sequence[Prompt]) -> str:
        """InputError for a map or a reference that is missing or wrong; a hash of all of them."""
        from tinyldm.data.encode import file_hashes
        from tinyldm.data.images import load_image

        files = []
        for prompt in prompts:
            scene, file = Scene.of(prompt), self.map_file(prompt)
            if not file.is_file():
                raise InputError(
                    f"{file}: no such segmentation map; "
                    "for a run's own prompts, --data FOLDER says where its data is now"
                )
            load_map(file)
            files.append(file)
            if scene.reference_file is not None:
                load_image(scene.reference_file)
                files.append(scene.reference_file)
        return key_of((file_hashes(files, workers=4, progress=False),))


# ---- files


def read_landscapes(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}_resized/imgs/STEM.jpg with its map {split}_resized/labels/STEM.png.

    A picture is its own reference.
    """
    place = f"{split}_resized"
    examples = []
    for image in images_in(folder / place / "imgs"):
        map = f"{place}/labels/{image.stem}.png"
        if (folder / map).is_file():
            scene = Scene(map, f"{place}/imgs/{image.name}", folder)
            examples.append(Example(image, (scene,)))
        else:
            problems.append(f"{folder / map}: no such segmentation map, for {image}")
    return examples


def is_landscapes(folder: Path) -> bool:
    """Whether a folder has the two subfolders of the assignment."""
    place = folder / "train_resized"
    return (place / "imgs").is_dir() and (place / "labels").is_dir()


def check_landscape(example: Example) -> None:
    """InputError unless the map of an example can be read and is as large as its image."""
    file = Scene.of(example.prompts[0]).map_file
    if file is not None:
        load_map(file, example.image)


def find_beside(file: Path, name: str, folders: Sequence[str], kind: str) -> str:
    """The path of a file that a prompt file names, relative to the prompt file's folder."""
    for folder in folders:
        path = Path(folder) / name
        if (file.parent / path).is_file():
            return str(path)
    raise InputError(
        f"{file}: no such {kind}: {name}, expected beside it or in {', '.join(folders[:-1])}"
    )


@dataclass(frozen=True)
class SceneFacts:
    """What a checkpoint says of the encoder: which CLIP, and how often the style was dropped."""

    name: str
    style_drop: Annotated[float, Limits(ge=0, le=1)]


class LandscapeTask(Task):
    """Landscapes from a segmentation map and a style image."""

    name = "landscape"
    prompt_files = ("label_to_img.json",)
    options = frozenset({"image_encoder", "style_drop"})
    facts = SceneFacts
    guides_style = True
    layouts = (
        Layout(
            "landscape",
            "train_resized/imgs with train_resized/labels (landscapes and their segmentation maps)",
            detect=is_landscapes,
            read=read_landscapes,
            check=check_landscape,
        ),
    )

    def prompt(self, text: str, folder: Path = Path()) -> Scene:
        """The scene of "map.png | reference.jpg".

        The first checkpoints have paths that start at the working folder; those are taken where the
        map is not in the folder but there.
        """
        scene = Scene.of(text, folder)
        from_here = Scene.of(text)
        if from_here.has_map() and not scene.has_map():
            return from_here
        return scene

    def text(self, prompt: Prompt, folder: Path = Path()) -> str:
        """The scene with paths relative to the folder, where they lie inside of it."""
        scene = Scene.of(prompt)
        map = path_within(folder, scene.folder, scene.map)
        reference = path_within(folder, scene.folder, scene.reference)
        return join_prompt(map, reference)

    def requests(self, file: Path) -> list[Request]:
        """label_to_img.json, map -> reference, drawn as the map's stem with .jpg."""
        if not self.reads(file):
            return super().requests(file)
        requests = []
        for name, reference in read_json(file, dict[str, str]).items():
            scene = Scene(
                find_beside(file, name, MAP_FOLDERS, "map"),
                find_beside(file, reference, IMAGE_FOLDERS, "reference image"),
                file.parent,
            )
            requests.append(Request(f"{Path(name).stem}.jpg", scene))
        return checked(requests, file)

    def reads(self, file: Path) -> bool:
        """A .json object with a string in it."""
        if file.suffix != ".json":
            return False
        content = read_json(file, dict | list)
        return isinstance(content, dict) and any(isinstance(v, str) for v in content.values())

    def size_handed_in(self, file: Path) -> tuple[int, int] | None:
        """512x384 for label_to_img.json."""
        return ASSIGNED if self.reads(file) else super().size_handed_in(file)

    def names(self, folder: Path) -> tuple[str, ...]:
        """The classes of the maps."""
        return CLASSES

    def recipe(self, native: tuple[int, int], given: Mapping[str, Any]) -> dict[str, Any]:
        """The pictures' own size, unless it is too large."""
        size = native if max(native) <= LARGEST else ASSIGNED
        recipe = {**FULL, "size": size}
        if max(given.get("size", size)) <= LARGEST_SMALL:
            recipe.update(SMALL_LANDSCAPES)
        return recipe

    def conditioning(self, settings: TrainSettings, names: tuple[str, ...]) -> dict[str, Any]:
        """Which CLIP sees the style, and how often it is dropped."""
        return {"name": settings.image_encoder, "style_drop": settings.style_drop}

    def encoder(self, facts: Mapping[str, Any], area: tuple[int, int], device: Any) -> Encoder:
        """The scenes' encoder."""
        from tinyldm.frozen.style import StyleEncoderOnDemand

        style = StyleEncoderOnDemand(facts["name"], device)
        return LandscapeEncoder(style, area, facts["style_drop"])

    def guidance(
        self, how: Drawing, null: Condition, schedule: NoiseSchedule
    ) -> Guidance | StepwiseGuidance | None:
        """Map and style with one scale, --guidance, or each with its own."""
        if how.style is None:
            return super().guidance(how, null, schedule)
        from tinyldm.methods.composition import StepwiseGuidance

        return StepwiseGuidance((how.guidance, how.style), map_then_style(null))

    def judge(self, names: tuple[str, ...]) -> Judge:
        """A small UNet that reads the map off a picture."""
        from tinyldm.tasks.judges import map_judge

        return map_judge(names, load_map)


def map_then_style(null: Condition) -> Callable[[Condition], list[Condition]]:
    """The conditions that StepwiseGuidance compares: none, the map, map and style (2211.09800)."""

    def conditions(full: Condition) -> list[Condition]:
        nothing = null.to(full.device).expand(len(full))
        return [nothing, replace(nothing, maps=full.maps), full]

    return conditions
