"""The toy set: captioned monsters in the format of the monster assignment.

Monsters of the test captions are in no training caption.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from tinyldm.errors import InputError
from tinyldm.folders import Kind, whole_folder
from tinyldm.toy import drawing

# name in file names -> action_description; a portrait ("main") fills the page and has no limbs
ACTIONS = {
    "main": "",
    "stand": "The monster is standing still.",
    "move": "The monster is moving.",
    "jump": "The monster is jumping.",
    "attack1": "The monster is attacking.",
    "hit1": "The monster is being hit.",
    "die1": "The monster is dying.",
    "skill1": "The monster is using a skill.",
}
# What an evaluation looks for in a drawing: attribute -> its possible values
ATTRIBUTES: dict[str, tuple[str, ...] | tuple[int, ...]] = {
    "colour": tuple(drawing.COLOURS),
    "shape": tuple(drawing.BODIES),
    "feature": drawing.FEATURES,
    "eyes": tuple(drawing.EYES),
    "action": tuple(ACTIONS),
}
WORDS = {  # other ways to say an attribute
    "gray": ("gray", "grey"),
    "round": ("round", "ball-shaped"),
    "square": ("square", "box-shaped"),
    "triangular": ("triangular", "cone-shaped"),
    "star-shaped": ("star-shaped", "star-like"),
    "ghost-like": ("ghost-like", "ghostly"),
    "mushroom-like": ("mushroom-like", "mushroom-shaped"),
    "horns": ("horns", "two horns", "ivory horns"),
    "wings": ("wings", "large wings", "two wings"),
    "spikes": ("spikes", "a spiked back", "sharp spikes"),
    "tail": ("a tail", "a long tail", "a pointed tail"),
    "crown": ("a crown", "a golden crown"),
    1: ("one eye", "a single eye", "one large eye"),
    2: ("two eyes", "a pair of eyes", "two big eyes"),
    3: ("three eyes", "three small eyes"),
}
TEMPLATES = (  # c colour, s shape, f feature, e eyes
    "A {c} {s} monster with {f} and {e}.",
    "{C} {s} monster with {e} and {f}.",
    "{S}, {c} monster with {f}, {e}.",
    "Small {c} {s} creature with {e} and {f}.",
    "Cartoonish {s} monster, {c}, with {f} and {e}.",
    "{C}, {s} creature. It has {e} and {f}.",
    "Pixel art of a {c} {s} monster with {f} and {e}.",
    "A {s} monster in {c} with {e}, {f}.",
    "{C} monster with a {s} body, {f}, and {e}.",
    "{S} {c} monster. {E}, {f}.",
)
PARTIAL = (  # leave out one attribute or two
    "A {c} {s} monster with {f}.",
    "{C} {s} monster with {e}.",
    "A {c} monster with {f} and {e}.",
    "{S} creature with {e} and {f}.",
    "Pixel art of a {c} {s} monster.",
)
HELD_OUT = 100  # of the 720 monsters, never in a training caption


@dataclass(frozen=True)
class Monster:
    """What a description tells of a monster; the values are those of ATTRIBUTES."""

    colour: str
    shape: str
    feature: str
    eyes: int

    def __post_init__(self):
        for name, value in asdict(self).items():
            known = ATTRIBUTES[name]
            if value not in known:
                raise ValueError(f"{name} {value!r} is none of {', '.join(map(str, known))}")


def draw(
    monster: Monster, action: str = "main", random: Random | int = 0, size: int = 64
) -> Image.Image:
    """The monster in an action, an RGB image on white.

    random: a Random, or its seed; it varies place, size, shade and limbs. ValueError: unknown
    action.
    """
    if action not in ACTIONS:
        raise ValueError(f"action {action!r} is none of {', '.join(ACTIONS)}")
    return drawing.draw(monster, action, random, size)


def describe(monster: Monster, random: Random, template: str | None = None) -> str:
    """One sentence about the monster; without a template, one that names all its attributes."""
    words = {}
    for name, value in asdict(monster).items():
        text = random.choice(WORDS.get(value, (value,)))
        letter = name[0]
        words[letter] = text
        words[letter.upper()] = text.capitalize()
    if template is None:
        template = random.choice(TEMPLATES)
    sentence = template.format(**words)
    return sentence.replace("A orange", "An orange").replace(" a orange", " an orange")


def descriptions(monster: Monster, random: Random) -> list[str]:
    """Three sentences; the third leaves something out half of the time, as real captions do."""
    first, second, third = random.sample(TEMPLATES, 3)
    partial = random.choice(PARTIAL)
    third = random.choice((third, partial))
    return [describe(monster, random, template) for template in (first, second, third)]


def monsters() -> tuple[list[Monster], list[Monster]]:
    """All 720 monsters in a fixed random order: those to train on, HELD_OUT others to test with."""
    values = product(drawing.COLOURS, drawing.BODIES, drawing.FEATURES, drawing.EYES)
    everything = [Monster(colour, shape, feature, eyes) for colour, shape, feature, eyes in values]
    Random("held out").shuffle(everything)
    return everything[HELD_OUT:], everything[:HELD_OUT]


def has_toys(folder: Path) -> bool:
    """Whether a folder holds a toy set: its attributes.json is in no other one."""
    return (folder / "attributes.json").is_file()


TOY_SET = Kind(
    "toy monsters",
    rf"train/[0-9]+_({'|'.join(ACTIONS)})_[0-9]\.png|(train_info|test|attributes)\.json",
    known=has_toys,
)


def write_toy(
    folder: str | Path, seed: int = 0, train_monsters: int | None = None, overwrite: bool = False
) -> Path:
    """Write the toy set: train/*.png, train_info.json, test.json and attributes.json.

    About 7,100 drawings of 64x64, one or two frames of each monster in each action, a quarter of
    them with transparency; 200 test prompts, two actions of each held-out monster; and for each
    key of test.json its attributes. train_monsters: draw only so many of the monsters. The folder
    appears when it is complete. InputError where it exists; overwrite replaces one that holds a
    toy set.
    """
    folder = Path(folder)
    known, unknown = monsters()
    with whole_folder(folder, TOY_SET, overwrite) as draft:
        (draft / "train").mkdir()
        info = write_training(draft / "train", known[:train_monsters], seed)
        write_json(draft / "train_info.json", info)
        test = test_prompts(unknown, seed)
        prompts = {key: prompt for key, (prompt, _) in test.items()}
        attributes = {key: attributes for key, (_, attributes) in test.items()}
        write_json(draft / "test.json", prompts)
        write_json(draft / "attributes.json", attributes)
    return folder


def ensure_toy(folder: str | Path) -> Path:
    """The folder with the toy set, written first if it is missing.

    Two processes may ask at once.
    """
    folder = Path(folder)
    if not folder.exists():
        try:
            write_toy(folder)
        except (OSError, InputError):
            if not folder.exists():  # otherwise another process was quicker
                raise
    return folder


def write_training(folder: Path, known: list[Monster], seed: int) -> dict[str, dict[str, Any]]:
    """Draw the training images into a folder and return the content of train_info.json."""
    info = {}
    progress = tqdm(known, desc="drawing monsters", unit="monster", disable=None)
    for number, monster in enumerate(progress):
        given = descriptions(monster, Random(f"{seed} train {number}"))
        name = f"{monster.colour} {monster.shape} {monster.feature} {monster.eyes}"
        for action, text in ACTIONS.items():
            key = f"{number}_{action}"
            frames = write_frames(folder, key, monster, action=action, seed=seed)
            info[key] = {
                "original_name": name,
                "given_description": given,
                "action_description": text,
                "num_frames": frames,
            }
    return info


def write_frames(folder: Path, key: str, monster: Monster, *, action: str, seed: int) -> int:
    """Draw the frames of a monster in an action into a folder; returns how many there are.

    Their numbers have gaps, as in the assignment. A quarter of the images are transparent.
    """
    r = Random(f"{seed} {key}")
    count = 1 if action == "main" else r.choice((1, 2))
    frames = sorted(r.sample(range(4), count))
    for frame in frames:
        image = draw(monster, action, Random(f"{seed} {key} {frame}"))
        if r.random() < 0.25:
            image = transparent(image)
        image.save(folder / f"{key}_{frame}.png", compress_level=1)
    return len(frames)


def transparent(image: Image.Image) -> Image.Image:
    """The same picture on white: where it was white it is transparent, with black hidden below."""
    pixels = np.asarray(image)
    visible = (pixels != 255).any(axis=2, keepdims=True)
    both = np.concatenate([pixels * visible, 255 * visible], axis=2)
    return Image.fromarray(both.astype(np.uint8))


def test_prompts(unknown: list[Monster], seed: int) -> dict[str, tuple[dict, dict]]:
    """key -> (prompt as in test.json, attributes); two of the actions for each monster."""
    prompts = {}
    actions = list(ACTIONS)
    for number, monster in enumerate(unknown):
        given = describe(monster, Random(f"{seed} test {number}"))
        first = number % 8
        second = (first + 1 + number // 8 % 7) % 8  # another one
        for action in (actions[first], actions[second]):
            key, text = f"{number}_{action}", ACTIONS[action]
            prompt = {
                "image_name": f"{key}.png",
                "given_description": given,
                "action_description": text,
                "text_prompt": f"{given} {text}".strip(),
            }
            attributes = {**asdict(monster), "action": action}
            prompts[key] = (prompt, attributes)
    return prompts


def write_json(path: Path, value: object) -> None:
    """Write a value as the assignment's files are written."""
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def random_monster_images(
    n: int, seed: int = 0, size: int = 64, held_out: bool = True
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """n fresh drawings, (n, size, size, 3) uint8, and their attributes.

    These are a dict: attribute -> (n,) int64, indices into its values in ATTRIBUTES.
    held_out: whether the monsters of the test prompts are among the drawings.
    """
    r = Random(f"images {seed}")
    known, unknown = monsters()
    choices = known + unknown if held_out else known
    images = np.empty((n, size, size, 3), np.uint8)
    labels = {name: np.empty(n, np.int64) for name in ATTRIBUTES}
    for k in range(n):
        monster = r.choice(choices)
        action = r.choice(tuple(ACTIONS))
        images[k] = np.asarray(draw(monster, action, r, size))
        for name, value in {**asdict(monster), "action": action}.items():
            labels[name][k] = ATTRIBUTES[name].index(value)
    return images, labels
