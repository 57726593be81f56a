"""python -m tinyldm landscapes: procedural ones with exact segmentation maps, in the layout of the assignment.

A scene is drawn twice over the same shapes: once as class numbers, once in the colours of a style. The style (season,
time of day, a palette of its own) is drawn apart from the shapes, so that map and style can be told one without the
other, as the assignment's two inputs are.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tinyldm.errors import InputError
from tinyldm.tasks.landscape import CLASSES

SIZE = (96, 128)  # (h, w), a quarter of the assignment's
# for each class: its colour in spring, summer, autumn and winter; how strong and how fine its texture is
GROUND = {
    "sky": ((150, 190, 230), (110, 170, 235), (170, 190, 210), (190, 200, 215), 0.05, 24),
    "mountain": ((120, 125, 135), (115, 110, 110), (130, 115, 110), (185, 190, 200), 0.16, 6),
    "hill": ((120, 165, 95), (95, 140, 75), (170, 130, 70), (205, 210, 215), 0.10, 12),
    "sea": ((70, 130, 165), (45, 120, 170), (75, 110, 130), (85, 110, 125), 0.10, 3),
    "lake": ((95, 150, 175), (75, 140, 175), (95, 125, 135), (175, 195, 210), 0.06, 4),
    "sand": ((215, 195, 150), (230, 205, 150), (205, 180, 140), (205, 200, 190), 0.05, 2),
    "earth": ((140, 110, 80), (155, 115, 75), (125, 90, 60), (150, 140, 130), 0.12, 3),
    "grass": ((115, 180, 75), (85, 160, 60), (175, 160, 75), (225, 230, 235), 0.14, 2),
    "road": ((125, 120, 115), (120, 118, 116), (115, 105, 100), (150, 150, 155), 0.03, 8),
    "rock": ((95, 92, 90), (100, 95, 90), (90, 82, 76), (120, 122, 128), 0.22, 3),
    "tree": ((70, 130, 55), (40, 105, 45), (200, 95, 35), (110, 120, 115), 0.30, 2),
    "house": ((205, 95, 75), (210, 120, 90), (185, 90, 70), (190, 110, 95), 0.03, 6),
}
TIMES = {
    "dawn": ((1.0, 0.82, 0.80), (35, 10, 25)),
    "day": ((1.0, 1.0, 1.0), (0, 0, 0)),
    "dusk": ((0.90, 0.62, 0.52), (40, 12, 5)),
    "night": ((0.28, 0.34, 0.55), (2, 4, 18)),
}  # factor, light added


class Style:
    """How things look: a season, a time of day, a tint and a contrast, all drawn from rng."""

    def __init__(self, rng: np.random.Generator):
        self.season, self.time = int(rng.integers(4)), list(TIMES)[rng.integers(4)]
        self.tint = rng.normal(0, 11, (len(GROUND), 3)) + rng.normal(0, 9, 3)
        self.haze, self.contrast = rng.uniform(0, 0.35), rng.uniform(0.8, 1.15)

    def colour(self, name: str) -> np.ndarray:
        """The colour of a class in daylight, (3,)."""
        return np.array(GROUND[name][self.season]) + self.tint[list(GROUND).index(name)]

    def lit(self, picture: np.ndarray) -> np.ndarray:
        """A picture of daylight colours (h, w, 3) at this time of day, as uint8."""
        factor, light = TIMES[self.time]
        graded = (128 + self.contrast * (picture - 128)) * factor + light
        return graded.clip(0, 255).round().astype(np.uint8)


def noise(rng: np.random.Generator, h: int, w: int, grain: int) -> np.ndarray:
    """Smooth noise (h, w) of variance about 1, its blots some grain pixels wide."""
    coarse = rng.normal(size=(max(2, h // grain + 2), max(2, w // grain + 2))).astype(np.float32)
    return 1.3 * np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC))


def ridge(rng: np.random.Generator, w: int, top: float, height: float, rough: float) -> np.ndarray:
    """The skyline of a chain (w,), between top and top + height: sines, rougher ones fainter."""
    x = np.linspace(0, 1, w)
    waves = sum(
        rough**k * np.sin(2 * np.pi * (2**k * rng.uniform(0.6, 1.4) * x + rng.uniform()))
        for k in range(5)
    )
    return top + height * (waves - waves.min()) / (np.ptp(waves) + 1e-6)


def shapes(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """A scene as class numbers (h, w) uint8, and marks (h, w) of what has another colour: 1 snow, 2 trunk, 3 wall."""
    y, x = np.mgrid[0:h, 0:w] / h
    scene, marks = np.full((h, w), CLASSES.index("sky"), np.uint8), np.zeros((h, w), np.uint8)

    def put(name, where, mark=0):
        scene[where], marks[where] = CLASSES.index(name), mark

    horizon = rng.uniform(0.35, 0.55)
    if rng.random() < 0.65:
        line = ridge(rng, w, rng.uniform(0.08, 0.2), horizon - 0.1, 0.55)
        put("mountain", y > line)
        put(
            "mountain",
            (y > line) & (y < line.min() + rng.uniform(0, 0.12) + 0.02 * np.sin(40 * x)),
            1,
        )  # snow
    if rng.random() < 0.6:
        put("hill", y > ridge(rng, w, horizon - rng.uniform(0.06, 0.16), 0.14, 0.35))
    ground = rng.choice(["sea", "grass", "earth"], p=[0.35, 0.45, 0.2])
    put(ground, y > horizon)
    shore = horizon
    if ground == "sea":
        shore = rng.uniform(0.65, 0.9)
        put("sand", y > ridge(rng, w, shore, 0.08, 0.3))
    elif rng.random() < 0.4:
        across = (x - rng.uniform(0.2, 1.1)) / rng.uniform(0.2, 0.5)
        put(
            "lake",
            across**2 + ((y - rng.uniform(horizon + 0.14, 0.8)) / rng.uniform(0.06, 0.12)) ** 2 < 1,
        )
    elif rng.random() < 0.6:
        depth = (y - horizon) / (1 - horizon)  # 0 at the horizon, 1 at the lower edge
        middle = rng.uniform(0.4, 0.9) + (1 - depth) ** 2 * rng.uniform(-0.4, 0.4)
        put("road", (depth > 0) & (abs(x - middle) < 0.015 + 0.2 * depth))
    things = [(rng.uniform(shore + 0.04, 0.97), rng.random()) for _ in range(rng.integers(2, 9))]
    for foot, kind in sorted(things):  # far ones first
        near, at = (foot - horizon) / (1 - horizon), rng.uniform(0, w / h)
        if (kind < 0.6 and ground != "sea") or kind < 0.3:
            tall, wide = (
                (0.10 + 0.32 * near) * rng.uniform(0.7, 1.2),
                (0.05 + 0.14 * near) * rng.uniform(0.7, 1.2),
            )
            put(
                "tree", (abs(x - at) < 0.12 * wide) & (y < foot) & (y > foot - 0.5 * tall), 2
            )  # trunk
            if rng.random() < 0.5:
                crown = ((x - at) / (0.6 * wide)) ** 2 + (
                    (y - foot + 0.7 * tall) / (0.36 * tall)
                ) ** 2 < 1
            else:
                crown = (y < foot - 0.2 * tall) & (
                    abs(x - at) < 0.7 * wide * (y - foot + tall) / (0.8 * tall)
                )
            put("tree", crown)
        elif kind < 0.8:
            size = 0.05 + 0.12 * near
            bumps = 0.3 * np.sin(30 * x + 90 * foot)
            put("rock", ((x - at) / (1.3 * size)) ** 2 + ((y - foot) / size) ** 2 + bumps < 1)
        else:
            half, tall = 0.05 + 0.09 * near, 0.07 + 0.12 * near
            put("house", (abs(x - at) < half) & (y < foot) & (y > foot - tall), 3)  # walls
            put("house", (y <= foot - tall) & (abs(x - at) < 1.6 * (y - foot + 1.7 * tall)))  # roof
    return scene, marks


def paint(
    rng: np.random.Generator, scene: np.ndarray, marks: np.ndarray, style: Style
) -> np.ndarray:
    """The picture (h, w, 3) uint8 of a scene in a style; rng draws the textures."""
    h, w = scene.shape
    y = np.linspace(0, 1, h)[:, None, None]
    picture = np.zeros((h, w, 3), np.float32)
    for name in GROUND:
        where = scene == CLASSES.index(name)
        if not where.any():
            continue
        colour, (strength, grain) = style.colour(name), GROUND[name][4:]
        for mark, other in (
            (0, colour),
            (1, (240, 242, 248)),
            (2, (95, 70, 50)),
            (3, (225, 215, 195)),
        ):
            here = where & (marks == mark)
            if here.any():
                texture = noise(rng, h, w, grain)[..., None] * strength * 60
                fade = (
                    0.3 * y if name == "sky" else style.haze * (1 - y) ** 2
                )  # to the horizon, things turn pale
                picture[here] = (other + texture + fade * (style.colour("sky") + 40 - other))[here]
    return style.lit(picture)


def draw(seed: int, k: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, Style]:
    """Landscape k of a seed: picture (h, w, 3), map (h, w), both uint8, and style."""
    rng, style = np.random.default_rng([seed, k, 0]), Style(np.random.default_rng([seed, k, 1]))
    scene, marks = shapes(rng, *size)
    return paint(rng, scene, marks, style), scene, style


def shares(scene: np.ndarray) -> np.ndarray:
    """The share of each class in a map."""
    return np.bincount(scene.ravel(), minlength=len(CLASSES)) / scene.size


def write_landscapes(
    out: Path, train: int = 6000, test: int = 200, size=SIZE, seed: int = 0, overwrite: bool = False
):
    """Write train_resized/{imgs,labels}, val_B_labels_resized and label_to_img.json, as the assignment has them.

    A map of the test set comes with the style of a training picture that shows about the same classes, one of those
    that fit best; val_B_imgs, which the assignment keeps to itself, holds the picture that the map was made with.
    """
    if out.exists() and any(out.iterdir()) and not (overwrite and (out / "val_B_imgs").is_dir()):
        raise InputError(
            f"--out {out}: not empty; choose another folder, or --overwrite one that this command drew"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=out.parent, prefix=f".{out.name}-"
    ) as draft:  # whole or absent
        _write(Path(draft) / "draft", train, test, size, seed)
        if out.exists():
            shutil.rmtree(out)
        os.rename(Path(draft) / "draft", out)


def _write(out: Path, train: int, test: int, size, seed: int):
    names = ("train_resized/imgs", "train_resized/labels", "val_B_imgs", "val_B_labels_resized")
    folders = [out / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    known, pairs = [], {}
    for k in tqdm(range(train + test), "drawing landscapes", unit="image"):
        picture, scene, _ = draw(seed, k, size)
        imgs, labels = folders[2 * (k >= train) :][:2]
        Image.fromarray(picture).save(imgs / f"{k:05d}.jpg", quality=95)
        Image.fromarray(scene).save(labels / f"{k:05d}.png")
        if k < train:
            known.append(shares(scene))
        else:
            fitting = (
                np.abs(np.stack(known) - shares(scene)).sum(1).argsort()[: max(1, train // 200)]
            )
            pairs[f"{k:05d}.png"] = f"{np.random.default_rng([seed, k, 2]).choice(fitting):05d}.jpg"
    (out / "label_to_img.json").write_text(json.dumps(pairs, indent=1))
