"""Procedural landscapes with exact segmentation maps, in the layout of the landscape assignment.

A scene is drawn twice over the same shapes: once as class numbers, once in the colours of a
style. The style (season, time of day, a palette of its own) is drawn at random independently of
the shapes, so that one can ask for any map in any style, as the assignment does.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from tinyldm.folders import Kind, whole_folder
from tinyldm.randomness import plain_stream
from tinyldm.tasks.segmentation import CLASSES

SIZE = (96, 128)  # (h, w), a quarter of the assignment's
# class -> its colour in spring, summer, autumn and winter; how strong and how coarse its texture is
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
TIMES = {  # time of day -> factor of colours, light added
    "dawn": ((1.0, 0.82, 0.80), (35, 10, 25)),
    "day": ((1.0, 1.0, 1.0), (0, 0, 0)),
    "dusk": ((0.90, 0.62, 0.52), (40, 12, 5)),
    "night": ((0.28, 0.34, 0.55), (2, 4, 18)),
}
# marks: parts of a class that have a colour of their own, whatever the season
SNOW, TRUNK, WALL = 1, 2, 3
MARKED = {SNOW: (240, 242, 248), TRUNK: (95, 70, 50), WALL: (225, 215, 195)}


class Style:
    """How things look: a season, a time of day, a tint and a contrast, all drawn from rng."""

    def __init__(self, rng: np.random.Generator):
        self.season = int(rng.integers(4))
        self.time = list(TIMES)[rng.integers(4)]
        self.tint = rng.normal(0, 11, (len(GROUND), 3)) + rng.normal(0, 9, 3)
        self.haze = rng.uniform(0, 0.35)
        self.contrast = rng.uniform(0.8, 1.15)

    def colour(self, name: str) -> np.ndarray:
        """The colour of a class in daylight, (3,)."""
        return np.array(GROUND[name][self.season]) + self.tint[list(GROUND).index(name)]

    def lit(self, picture: np.ndarray) -> np.ndarray:
        """A picture of daylight colours (h, w, 3) at this time of day, as uint8."""
        factor, light = TIMES[self.time]
        graded = (128 + self.contrast * (picture - 128)) * factor + light
        return graded.clip(0, 255).round().astype(np.uint8)


def noise(rng: np.random.Generator, h: int, w: int, grain: int) -> np.ndarray:
    """Smooth noise (h, w) of variance about 1, with blots some `grain` pixels wide."""
    cells = (max(2, h // grain + 2), max(2, w // grain + 2))
    coarse = Image.fromarray(rng.normal(size=cells).astype(np.float32))
    return 1.3 * np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC))


def ridge(
    rng: np.random.Generator, w: int, *, top: float, height: float, rough: float
) -> np.ndarray:
    """The skyline of a chain of hills (w,), between top and top + height: a sum of five sines.

    Each is about twice as fine as the one before and fainter by the factor `rough`.
    """
    x = np.linspace(0, 1, w)
    waves = np.zeros(w)
    for k in range(5):
        frequency = 2**k * rng.uniform(0.6, 1.4)
        phase = rng.uniform()
        waves = waves + rough**k * np.sin(2 * np.pi * (frequency * x + phase))
    return top + height * (waves - waves.min()) / (np.ptp(waves) + 1e-6)


class Board:
    """A scene in the making, h x w pixels.

    scene: class numbers, at first all sky; marks: SNOW, TRUNK, WALL or 0; both (h, w) uint8
    y, x:  of each pixel, in units of the height: y from 0 at the top to 1, x from 0 to w / h
    """

    def __init__(self, h: int, w: int):
        self.h, self.w = h, w
        self.y, self.x = np.mgrid[0:h, 0:w] / h
        self.scene = np.full((h, w), CLASSES.index("sky"), np.uint8)
        self.marks = np.zeros((h, w), np.uint8)

    def put(self, name: str, where: np.ndarray, mark: int = 0) -> None:
        """Lay a class over what is there, where `where` (h, w) is true."""
        self.scene[where] = CLASSES.index(name)
        self.marks[where] = mark


def shapes(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """A scene: class numbers, and marks of what has a colour of its own, (h, w) uint8 both."""
    board = Board(h, w)
    horizon = rng.uniform(0.35, 0.55)
    if rng.random() < 0.65:
        add_mountains(rng, board, horizon)
    if rng.random() < 0.6:
        top = horizon - rng.uniform(0.06, 0.16)
        board.put("hill", board.y > ridge(rng, w, top=top, height=0.14, rough=0.35))
    ground = rng.choice(["sea", "grass", "earth"], p=[0.35, 0.45, 0.2])
    board.put(ground, board.y > horizon)

    shore = horizon
    if ground == "sea":
        shore = rng.uniform(0.65, 0.9)
        board.put("sand", board.y > ridge(rng, w, top=shore, height=0.08, rough=0.3))
    elif rng.random() < 0.4:
        add_lake(rng, board, horizon)
    elif rng.random() < 0.6:
        add_road(rng, board, horizon)

    things = []
    for _ in range(rng.integers(2, 9)):
        foot = rng.uniform(shore + 0.04, 0.97)  # the y of its lower edge
        kind = rng.random()
        things.append((foot, kind))
    for foot, kind in sorted(things):  # far ones first
        near = (foot - horizon) / (1 - horizon)  # 0 at the horizon, 1 at the lower edge
        middle = rng.uniform(0, w / h)
        if kind < 0.3 or (kind < 0.6 and ground != "sea"):
            add_tree(rng, board, middle=middle, foot=foot, near=near)
        elif kind < 0.8:
            add_rock(board, middle, foot, near)
        else:
            add_house(board, middle, foot, near)
    return board.scene, board.marks


def add_mountains(rng: np.random.Generator, board: Board, horizon: float) -> None:
    """A chain of mountains, with snow where they are highest."""
    y, x = board.y, board.x
    top = rng.uniform(0.08, 0.2)
    skyline = ridge(rng, board.w, top=top, height=horizon - 0.1, rough=0.55)
    board.put("mountain", y > skyline)
    snow_line = skyline.min() + rng.uniform(0, 0.12) + 0.02 * np.sin(40 * x)
    board.put("mountain", (y > skyline) & (y < snow_line), SNOW)


def add_lake(rng: np.random.Generator, board: Board, horizon: float) -> None:
    """An ellipse of water on the ground."""
    across = (board.x - rng.uniform(0.2, 1.1)) / rng.uniform(0.2, 0.5)
    down = (board.y - rng.uniform(horizon + 0.14, 0.8)) / rng.uniform(0.06, 0.12)
    board.put("lake", across**2 + down**2 < 1)


def add_road(rng: np.random.Generator, board: Board, horizon: float) -> None:
    """A bent road from the horizon to the lower edge, ever wider."""
    depth = (board.y - horizon) / (1 - horizon)  # 0 at the horizon, 1 at the lower edge
    middle = rng.uniform(0.4, 0.9) + (1 - depth) ** 2 * rng.uniform(-0.4, 0.4)
    board.put("road", (depth > 0) & (abs(board.x - middle) < 0.015 + 0.2 * depth))


def add_tree(
    rng: np.random.Generator, board: Board, *, middle: float, foot: float, near: float
) -> None:
    """A trunk with a crown, round or pointed."""
    y, x = board.y, board.x
    tall = (0.10 + 0.32 * near) * rng.uniform(0.7, 1.2)
    wide = (0.05 + 0.14 * near) * rng.uniform(0.7, 1.2)
    trunk = (abs(x - middle) < 0.12 * wide) & (y < foot) & (y > foot - 0.5 * tall)
    board.put("tree", trunk, TRUNK)
    if rng.random() < 0.5:
        across = (x - middle) / (0.6 * wide)
        down = (y - foot + 0.7 * tall) / (0.36 * tall)
        crown = across**2 + down**2 < 1
    else:
        from_the_tip = (y - foot + tall) / (0.8 * tall)
        crown = (y < foot - 0.2 * tall) & (abs(x - middle) < 0.7 * wide * from_the_tip)
    board.put("tree", crown)


def add_rock(board: Board, middle: float, foot: float, near: float) -> None:
    """A bumpy boulder around its foot."""
    size = 0.05 + 0.12 * near
    across = (board.x - middle) / (1.3 * size)
    down = (board.y - foot) / size
    bumps = 0.3 * np.sin(30 * board.x + 90 * foot)
    board.put("rock", across**2 + down**2 + bumps < 1)


def add_house(board: Board, middle: float, foot: float, near: float) -> None:
    """Pale walls under a pointed roof."""
    y, x = board.y, board.x
    half = 0.05 + 0.09 * near  # of its width
    tall = 0.07 + 0.12 * near
    board.put("house", (abs(x - middle) < half) & (y < foot) & (y > foot - tall), WALL)
    from_the_tip = y - foot + 1.7 * tall
    board.put("house", (y <= foot - tall) & (abs(x - middle) < 1.6 * from_the_tip))


def paint(
    rng: np.random.Generator, scene: np.ndarray, marks: np.ndarray, style: Style
) -> np.ndarray:
    """The picture (h, w, 3) uint8 of a scene in a style; rng draws the textures."""
    h, w = scene.shape
    y = np.linspace(0, 1, h)[:, None, None]
    pale = style.colour("sky") + 40  # what things fade to, towards the horizon
    picture = np.zeros((h, w, 3), np.float32)
    for name in GROUND:
        of_class = scene == CLASSES.index(name)
        strength, grain = GROUND[name][4:]
        fade = 0.3 * y if name == "sky" else style.haze * (1 - y) ** 2
        for mark in (0, *MARKED):
            here = of_class & (marks == mark)
            if not here.any():
                continue
            colour = MARKED[mark] if mark else style.colour(name)
            texture = noise(rng, h, w, grain)[..., None] * strength * 60
            painted = colour + texture + fade * (pale - colour)
            picture[here] = painted[here]
    return style.lit(picture)


def draw(seed: int, k: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, Style]:
    """Landscape k of a seed at (h, w): picture (h, w, 3), map (h, w), both uint8, and style."""
    rng = plain_stream(seed, k, 0)
    style = Style(plain_stream(seed, k, 1))
    scene, marks = shapes(rng, *size)
    return paint(rng, scene, marks, style), scene, style


def shares(scene: np.ndarray) -> np.ndarray:
    """The share of each class in a map."""
    return np.bincount(scene.ravel(), minlength=len(CLASSES)) / scene.size


def has_landscapes(folder: Path) -> bool:
    """Whether a folder holds drawn landscapes: no other has the pictures of the test set."""
    return (folder / "val_B_imgs").is_dir()


LANDSCAPES = Kind(
    "landscapes",
    r"(train_resized/(imgs|labels)|val_B_(imgs|labels_resized))/[0-9]{5,}\.(jpg|png)"
    r"|label_to_img\.json",
    known=has_landscapes,
)


def write_landscapes(
    out: Path,
    train: int = 6000,
    test: int = 200,
    size: tuple[int, int] = SIZE,
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write train_resized/{imgs,labels}, val_B_labels_resized and label_to_img.json.

    That is the layout of the assignment. A map of the test set comes with the style of a training
    picture that shows about the same classes, one of those that fit best. val_B_imgs, which the
    assignment keeps to itself, holds the picture that the map was made with.
    The folder appears when it is complete. InputError where it is not empty; overwrite replaces one
    that was written here.
    """
    with whole_folder(out, LANDSCAPES, overwrite) as draft:
        known = write_training(draft, train, size, seed)
        write_test(draft, range(train, train + test), known, size=size, seed=seed)


def write_training(out: Path, count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Draw the training pictures and return the shares of classes in each, (count, classes)."""
    images = out / "train_resized" / "imgs"
    maps = out / "train_resized" / "labels"
    images.mkdir(parents=True)
    maps.mkdir()
    known = []
    for k in tqdm(range(count), "drawing landscapes", unit="image"):
        picture, scene, _ = draw(seed, k, size)
        save(images / f"{k:05d}.jpg", picture)
        save(maps / f"{k:05d}.png", scene)
        known.append(shares(scene))
    return np.stack(known)


def write_test(
    out: Path, numbers: range, known: np.ndarray, *, size: tuple[int, int], seed: int
) -> None:
    """Draw the test set, and choose a training picture as the style of each of its maps."""
    images = out / "val_B_imgs"
    maps = out / "val_B_labels_resized"
    images.mkdir()
    maps.mkdir()
    fitting = max(1, len(known) // 200)  # how many training pictures it is chosen from
    pairs = {}
    for k in tqdm(numbers, "drawing test maps", unit="image"):
        picture, scene, _ = draw(seed, k, size)
        save(images / f"{k:05d}.jpg", picture)
        save(maps / f"{k:05d}.png", scene)
        distance = np.abs(known - shares(scene)).sum(1)
        nearest = distance.argsort()[:fitting]
        reference = plain_stream(seed, k, 2).choice(nearest)
        pairs[f"{k:05d}.png"] = f"{reference:05d}.jpg"
    (out / "label_to_img.json").write_text(json.dumps(pairs, indent=1))


def save(file: Path, pixels: np.ndarray) -> None:
    """Write pixels (h, w, 3) or (h, w), uint8, as an image; a .jpg with little loss."""
    Image.fromarray(pixels).save(file, quality=95)  # which .png files ignore
