"""The toy set: captioned monsters in the format of the monster assignment, training and test captions apart."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from tqdm import tqdm

from tinyldm.errors import InputError
from tinyldm.toy import drawing

ACTIONS = {  # name in file names -> action_description; a portrait ("main") has no shadow, no limbs, and fills the page
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
ATTRIBUTES = {
    "colour": tuple(drawing.COLOURS),
    "shape": tuple(drawing.BODIES),
    "feature": drawing.FEATURES,
    "eyes": (1, 2, 3),
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
            if value not in ATTRIBUTES[name]:
                raise ValueError(
                    f"{name} {value!r} is none of {', '.join(map(str, ATTRIBUTES[name]))}"
                )


def draw(
    monster: Monster, action: str = "main", random: Random | int = 0, size: int = 64
) -> Image.Image:
    """The monster in an action, RGB on white; random (a Random or its seed) varies place, size, shade and limbs."""
    if action not in ACTIONS:
        raise ValueError(f"action {action!r} is none of {', '.join(ACTIONS)}")
    return drawing.draw(monster, action, random, size)


def describe(monster: Monster, random: Random, template: str | None = None) -> str:
    """One sentence about the monster, which names all its attributes if no template is given."""
    said = {
        name: random.choice(WORDS.get(value, (value,))) for name, value in asdict(monster).items()
    }
    letters = {name[0]: text for name, text in said.items()}
    capitals = {letter.upper(): text.capitalize() for letter, text in letters.items()}
    sentence = (template or random.choice(TEMPLATES)).format(**letters, **capitals)
    return sentence.replace("A orange", "An orange").replace(" a orange", " an orange")


def descriptions(monster: Monster, random: Random) -> list[str]:
    """Three sentences; the third leaves something out half of the time, as real captions do."""
    first, second, third = random.sample(TEMPLATES, 3)
    return [
        describe(monster, random, t)
        for t in (first, second, random.choice((third, random.choice(PARTIAL))))
    ]


def monsters() -> tuple[list[Monster], list[Monster]]:
    """All 720 monsters in a fixed random order: those to train on, and the HELD_OUT ones to test with."""
    values = [ATTRIBUTES[name] for name in ("colour", "shape", "feature", "eyes")]
    everything = [Monster(*v) for v in product(*values)]
    Random("held out").shuffle(everything)
    return everything[HELD_OUT:], everything[:HELD_OUT]


def write_toy(
    folder: str | Path, seed: int = 0, train_monsters: int | None = None, overwrite: bool = False
) -> Path:
    """Write the toy set: train/*.png, train_info.json, test.json, and attributes.json (of each key of test.json).

    About 7,100 drawings of 64x64, one or two frames of each monster in each action, a quarter of them with
    transparency; 200 test prompts, two actions of each held-out monster. train_monsters takes fewer monsters.
    The folder appears when it is complete. An existing folder raises InputError; overwrite replaces one that holds a toy set.
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / "attributes.json").is_file()):
        raise InputError(
            f"{folder} exists already; choose another folder, or --overwrite one that was drawn here"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = Path(temporary) / "draft"
        (draft / "train").mkdir(parents=True)
        known, unknown = monsters()
        write_json(
            draft / "train_info.json", write_training(draft / "train", known[:train_monsters], seed)
        )
        test = test_prompts(unknown, seed)
        write_json(draft / "test.json", {key: prompt for key, (prompt, _) in test.items()})
        write_json(
            draft / "attributes.json", {key: attributes for key, (_, attributes) in test.items()}
        )
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        os.rename(draft, folder)
    return folder


def ensure_toy(folder: str | Path) -> Path:
    """The folder with the toy set, written first if it isn't there; two processes may ask at once."""
    folder = Path(folder)
    if not folder.exists():
        try:
            write_toy(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was quicker
                raise
    return folder


def write_training(folder: Path, known: list[Monster], seed: int) -> dict[str, dict]:
    """Draw the training images into the folder and return train_info."""
    info = {}
    for number, monster in enumerate(
        tqdm(known, desc="drawing monsters", unit="monster", disable=None)
    ):
        given = descriptions(monster, Random(f"{seed} train {number}"))
        for action, text in ACTIONS.items():
            key = f"{number}_{action}"
            r = Random(f"{seed} {key}")
            frames = sorted(
                r.sample(range(4), 1 if action == "main" else r.choice((1, 2)))
            )  # numbers have gaps
            for frame in frames:
                image = draw(monster, action, Random(f"{seed} {key} {frame}"))
                image = transparent(image) if r.random() < 0.25 else image
                image.save(folder / f"{key}_{frame}.png", compress_level=1)
            name = f"{monster.colour} {monster.shape} {monster.feature} {monster.eyes}"
            info[key] = {
                "original_name": name,
                "given_description": given,
                "action_description": text,
                "num_frames": len(frames),
            }
    return info


def transparent(image: Image.Image) -> Image.Image:
    """The same picture on white, with black hidden under fully transparent pixels wherever it was white."""
    pixels = np.asarray(image)
    visible = (pixels != 255).any(axis=2, keepdims=True)
    return Image.fromarray(
        np.concatenate([pixels * visible, 255 * visible], axis=2).astype(np.uint8)
    )


def test_prompts(unknown: list[Monster], seed: int) -> dict[str, tuple[dict, dict]]:
    """key -> (prompt in the format of test.json, attributes): two actions of each monster, all about equally often."""
    prompts, actions = {}, list(ACTIONS)
    for number, monster in enumerate(unknown):
        given = describe(monster, Random(f"{seed} test {number}"))
        for action in (actions[number % 8], actions[(number + 1 + number // 8 % 7) % 8]):
            key, text = f"{number}_{action}", ACTIONS[action]
            prompt = {
                "image_name": f"{key}.png",
                "given_description": given,
                "action_description": text,
                "text_prompt": f"{given} {text}".strip(),
            }
            prompts[key] = prompt, {**asdict(monster), "action": action}
    return prompts


def write_json(path: Path, value):
    """Write a value as the assignment's files are written."""
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def random_monster_images(n: int, seed: int = 0, size: int = 64, held_out: bool = True):
    """n fresh drawings, (n, size, size, 3) uint8, and a dict: attribute -> (n,) int64, indices into ATTRIBUTES.

    held_out: whether the monsters of the test prompts are among them.
    """
    r, (known, unknown) = Random(f"images {seed}"), monsters()
    choices = known + unknown if held_out else known
    images, labels = (
        np.empty((n, size, size, 3), np.uint8),
        {name: np.empty(n, np.int64) for name in ATTRIBUTES},
    )
    for k in range(n):
        monster, action = r.choice(choices), r.choice(tuple(ACTIONS))
        images[k] = np.asarray(draw(monster, action, r, size))
        for name, value in {**asdict(monster), "action": action}.items():
            labels[name][k] = ATTRIBUTES[name].index(value)
    return images, labels
