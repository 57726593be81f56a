"""Task landscape: a segmentation map says where things are, a reference image how they look.

In texts the two files stand side by side, "map.png | reference.jpg"; without the second there is no style.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tinyldm.condition import Condition
from tinyldm.data.cache import build_once, cache_folder, key_of, read_header
from tinyldm.data.encode import digests
from tinyldm.data.examples import IMAGE_SUFFIXES, Example, Examples, Format, Prompt
from tinyldm.data.images import Augmentation, load_image, resize
from tinyldm.data.latents import LatentCache, open_or_build
from tinyldm.errors import InputError
from tinyldm.files import read_json, writing
from tinyldm.frozen.style import StyleEncoder

BETWEEN = " | "
GRAIN = 4  # a map is kept at up to so many times the latents' height and width: what share of a cell is of which class
MAPS = ("val_B_labels_resized", "val_A_labels_resized", "labels", "train_resized/labels", ".")
IMAGES = ("train_resized/imgs", "imgs", ".")


def parts(text: str) -> tuple[Path | None, Path | None]:
    """The map and the reference that a text names."""
    first, _, second = (part.strip() for part in text.partition(BETWEEN.strip()))
    return Path(first) if first else None, Path(second) if second else None


def load_map(file: Path, image: Path | None = None) -> Image.Image:
    """A single-channel image of class numbers, as large as its image; InputError names a file that isn't."""
    try:
        with Image.open(file) as scene:
            scene.load()
    except FileNotFoundError:
        raise InputError(f"{file}: no such segmentation map") from None
    except Exception as error:
        raise InputError(f"{file}: not an image that can be read ({error})") from None
    if scene.mode not in ("L", "P"):
        raise InputError(
            f"{file}: a segmentation map has one channel of 8 bits, this image is {scene.mode}"
        )
    highest = int(np.asarray(scene).max())
    if highest >= len(CLASSES):
        raise InputError(
            f"{file}: a value of {highest}, expected classes from 0 to {len(CLASSES) - 1}"
        )
    if image is not None and (size := _size(image) or scene.size) != scene.size:
        raise InputError(
            f"{file}: is {'%dx%d' % scene.size}, but its image {image.name} is {'%dx%d' % size}"
        )
    return Image.fromarray(np.asarray(scene))  # of a palette, the numbers


def class_shares(maps: Tensor, area: tuple[int, int]) -> Tensor:
    """uint8 maps (b, h, w) -> the share of each class in each cell, (b, 29, *area): one-hot within a class."""
    hot = (
        maps[:, None]
        == torch.arange(len(CLASSES), dtype=torch.uint8, device=maps.device)[:, None, None]
    ).float()
    return F.adaptive_avg_pool2d(hot, area)


@dataclass(frozen=True, eq=False)
class LandscapeEncoder:
    """Texts -> Condition: maps (b, 29, *area); the style's tokens with a mask, the first of them also as the vector."""

    style: StyleEncoder
    area: tuple[int, int]  # (h, w) of the latents
    style_drop: float = 0.0

    @property
    def width(self) -> int:
        return self.style.width

    @property
    def fingerprint(self) -> str:
        return key_of("landscape", self.style.fingerprint, CLASSES)[:16]

    def stored(self, texts: list[str]) -> Condition:
        """The tokens of the references, which the latent cache keeps; none, all masked, where there is no reference."""
        references = [parts(text)[1] for text in texts]
        there = [k for k, file in enumerate(references) if file]
        if not there:
            return Condition(
                torch.zeros(len(texts), 1, self.width), torch.zeros(len(texts), 1, dtype=torch.bool)
            )
        found = self.style.encode(
            [load_image(references[k]) for k in there]
        ).cpu()  # (number of there, n, width)
        tokens, mask = (
            found.new_zeros(len(texts), *found.shape[1:]),
            torch.zeros(len(texts), dtype=torch.bool),
        )
        tokens[there], mask[there] = found, True
        return Condition(tokens, mask[:, None].expand(tokens.shape[:2]))

    def encode(self, texts: list[str]) -> Condition:
        """Maps and styles; InputError: a file that is missing or wrong."""
        stored = self.stored(texts)
        maps = torch.zeros(len(texts), len(CLASSES), *self.area)
        for k, (file, _) in enumerate(map(parts, texts)):
            if file is not None:
                scene = resize(load_map(file), self.fine, nearest=True)
                maps[k] = class_shares(torch.from_numpy(np.array(scene))[None], self.area)[0]
        return Condition(stored.tokens, stored.mask, stored.tokens[:, 0], maps)

    def check(self, texts: list[str]) -> str:
        """A hash of what the files hold; InputError: a map or a reference that is missing or wrong."""
        for text in texts:
            first, second = parts(text)
            if first is None:
                raise InputError(f"{text!r}: expected a segmentation map, or MAP{BETWEEN}REFERENCE")
            load_map(first)
            if second is not None:
                load_image(second)
        return key_of(digests([file for text in texts for file in parts(text) if file], 4, False))

    @property
    def fine(self) -> tuple[int, int]:
        """(h, w) at which maps are kept."""
        return GRAIN * self.area[0], GRAIN * self.area[1]

    def finish_with(self, maps: np.ndarray | None, kept: np.ndarray | None = None):
        """What a latent cache calls to make the condition of stored tokens.

        maps: (all rows, *fine) uint8; kept: (n,) which of them the rows of the cache are. The style of a sample is
        dropped with probability style_drop, its map is not: so that guidance can tell the two apart.
        """

        def finish(stored: Condition, rows, generator) -> Condition:
            cells, device = torch.zeros(len(stored), len(CLASSES), *self.area), stored.tokens.device
            if rows is not None:  # None is the null condition
                styled = (torch.rand(len(stored), 1, generator=generator) >= self.style_drop).to(
                    device
                )
                stored = Condition(stored.tokens * styled[..., None], stored.mask & styled)
                cells = class_shares(torch.from_numpy(maps[kept[rows]]).to(device), self.area)
            return Condition(
                stored.tokens, stored.mask, stored.tokens[:, 0].clone(), cells
            )  # saved apart

        return finish


def open_cache(
    examples,
    vae,
    encoder: LandscapeEncoder,
    size,
    augmentation: Augmentation,
    *,
    workers: int = 4,
    progress: bool = True,
    folder: str | Path | None = None,
    skip_bad: bool = False,
    **options,
) -> LatentCache:
    """The latent cache of landscapes: as open_or_build, and beside it the maps, augmented as the images are.

    A reference counts by what it shows and not by where it lies, so that data that moved is known again.
    """
    hashes = digests([example.image for example in examples], max(workers, 1), progress)
    maps = [parts(example.captions[0])[0] for example in examples]
    key = key_of(
        "maps", hashes, digests(maps, max(workers, 1), False), encoder.fine, augmentation.to_dict()
    )
    place = (Path(folder) if folder else cache_folder()) / "maps" / key
    how = (encoder.fine, augmentation, progress, skip_bad)
    wrong = build_once(place, lambda new: _write_maps(new, examples, maps, hashes, *how)).get(
        "left_out", {}
    )
    if wrong and not skip_bad:
        raise InputError(next(iter(wrong.values())))
    good = [k for k in range(len(examples)) if str(k) not in wrong]
    texts = {hashes[k] or str(k): f"{BETWEEN}{examples[k].image}" for k in good}
    problems = [*getattr(examples, "problems", ()), *wrong.values()]
    examples = Examples(
        [Example(examples[k].image, (hashes[k] or str(k),)) for k in good], problems
    )
    keyed = SimpleNamespace(
        stored=lambda keys: encoder.stored([texts.get(key, "") for key in keys]),
        width=encoder.width,
        finish=encoder.finish_with(None),
        fingerprint=encoder.fingerprint,
    )
    options |= {"folder": folder, "workers": workers, "progress": progress, "skip_bad": skip_bad}
    cache, views = (
        open_or_build(examples, vae, keyed, size, augmentation, **options),
        np.arange(augmentation.views),
    )
    left_out = set(map(int, read_header(cache.folder)["left_out"]))
    kept = np.array([k for k in range(len(examples)) if k not in left_out])
    content = np.memmap(place / "maps.u8", np.uint8, "r").reshape(-1, *encoder.fine)
    cache.finish = encoder.finish_with(
        np.asarray(content), (kept[:, None] * len(views) + views).ravel()
    )
    cache.key = key_of(cache.key, key)
    return cache


def _write_maps(
    folder: Path, examples, maps, hashes, fine, augmentation: Augmentation, progress, skip_bad
) -> dict:
    """Write maps.u8 (rows, *fine): every view of every map; the header says, {index: why}, which of them are wrong."""
    wrong, bar = {}, tqdm(maps, "reading maps", unit="map", delay=2, disable=not progress)
    with writing(folder / "maps.u8") as file:
        for k, (example, at, key) in enumerate(zip(examples, bar, hashes, strict=True)):
            try:
                scene = load_map(at, example.image)
            except InputError as error:
                if not skip_bad:
                    raise
                wrong[str(k)] = str(error)
                continue
            for view in augmentation.apply(scene, fine, int(key or "0", 16), nearest=True):
                file.write(np.asarray(view, np.uint8))
    return {"left_out": wrong}


def _size(file: Path) -> tuple[int, int] | None:
    """(width, height) of an image file; None for one that can't be read, which is told when it is encoded."""
    try:
        with Image.open(file) as image:
            return image.size
    except Exception:  # as load_image
        return None


def read_examples(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """{split}_resized/imgs/STEM.jpg with the map {split}_resized/labels/STEM.png; a picture is its own reference."""
    place = folder.resolve() / f"{split}_resized"
    images = {
        file.stem: file
        for file in sorted((place / "imgs").iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES
    }
    maps = {file.stem for file in (place / "labels").glob("*.png")}
    problems += [
        f"{place / 'labels' / stem}.png: no such segmentation map, for {file}"
        for stem, file in images.items()
        if stem not in maps
    ]
    pairs = [
        (file, f"{place / 'labels' / stem}.png{BETWEEN}{file}")
        for stem, file in images.items()
        if stem in maps
    ]
    return [Example(file, (text,)) for file, text in pairs]


def read_prompts(file: Path) -> list[Prompt]:
    """label_to_img.json: map -> reference; drawn as the map's stem with .jpg. Both lie in one of the usual places."""
    pairs = read_json(file, dict)
    prompts = []
    for scene, reference in pairs.items():
        if not isinstance(reference, str):
            raise InputError(
                f"{file}: {scene}: expected the name of an image, got {json.dumps(reference)[:60]}"
            )
        found = [
            next(
                (
                    file.parent / place / name
                    for place in places
                    if (file.parent / place / name).is_file()
                ),
                None,
            )
            for name, places in ((scene, MAPS), (reference, IMAGES))
        ]
        for name, path, places, kind in zip(
            (scene, reference), found, (MAPS, IMAGES), ("map", "reference image")
        ):
            if path is None:
                raise InputError(
                    f"{file}: no such {kind}: {name}, expected beside it or in {', '.join(places[:-1])}"
                )
        prompts.append(Prompt(f"{Path(scene).stem}.jpg", f"{found[0]}{BETWEEN}{found[1]}"))
    return prompts


FORMAT = Format(
    "train_resized/imgs with train_resized/labels (landscapes and their segmentation maps)",
    lambda folder: all((folder / "train_resized" / name).is_dir() for name in ("imgs", "labels")),
    read_examples,
)


@dataclass(frozen=True, eq=False)
class MapStyleGuidance:
    """Guidance by map and style, each with a scale of its own (2211.09800, eq. 3), in place of diffusion's Guidance.

    The guided prediction is N + scale_map (M - N) + scale_style (MS - M): N knows neither (null, one row), M the map
    alone, MS both. It takes three rows of the network for a sample.
    """

    scale_map: float
    scale_style: float
    null: Condition

    def __call__(self, denoiser):
        """The guided denoiser (x_t, t, condition) -> prediction."""

        def guided(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            null = self.null.to(x_t.device).expand(len(x_t))
            unstyled = replace(null, maps=condition.maps)
            rows = denoiser(
                torch.cat([x_t] * 3), t.repeat(3), Condition.cat([condition, unstyled, null])
            )
            both, alone, neither = rows.to(x_t.dtype).chunk(3)
            return neither + self.scale_map * (alone - neither) + self.scale_style * (both - alone)

        return guided


CLASSES = tuple(
    [
        "mountain",
        "sky",
        "water",
        "sea",
        "rock",
        "tree",
        "earth",
        "hill",
        "river",
        "sand",
        "land",
        "building",
        "grass",
        "plant",
        "person",
        "boat",
        "waterfall",
        "wall",
        "pier",
        "path",
        "lake",
        "bridge",
        "field",
        "road",
        "railing",
        "fence",
        "ship",
        "house",
        "other",
    ]
)
