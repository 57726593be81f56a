"""Captioned pictures, and captions without pictures: what the tiny CLIP learns from."""

from __future__ import annotations

from math import cos, pi, sin
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from tinyldm.toy import drawing
from tinyldm.toy import monsters as toy
from tinyldm.toy.drawing import OVERSAMPLING, WHITE, Pen, arc, mix, star

COLOURS = {
    **drawing.COLOURS,
    "cyan": (40, 205, 215),
    "brown": (128, 76, 34),
    "black": (24, 24, 28),
    "white": (250, 250, 250),
}
SOLID_COLOURS = {  # of the 24 objects of i-CLEVR
    "gray": (100, 100, 100),
    "red": (170, 40, 38),
    "blue": (42, 75, 215),
    "green": (30, 105, 22),
    "brown": (125, 76, 28),
    "purple": (128, 38, 188),
    "cyan": (45, 205, 205),
    "yellow": (235, 220, 50),
}
SHAPES = {
    "circle": arc((0, 0), (1, 1), (0, 350), 28),
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (1, 0.8), (-1, 0.8)],
    "star": star(5, 1.1, 0.45),
    "diamond": [(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)],
    "cross": [
        (-0.3, -1),
        (0.3, -1),
        (0.3, -0.3),
        (1, -0.3),
        (1, 0.3),
        (0.3, 0.3),
        (0.3, 1),
        (-0.3, 1),
        (-0.3, 0.3),
        (-1, 0.3),
        (-1, -0.3),
        (-0.3, -0.3),
    ],
    "heart": [
        (
            0.058 * 16 * sin(a) ** 3,
            -0.06 * (13 * cos(a) - 5 * cos(2 * a) - 2 * cos(3 * a) - cos(4 * a)),
        )
        for a in (2 * pi * k / 28 for k in range(28))
    ],
    "ring": arc((0, 0), (1, 1), (0, 350), 28),
    "moon": arc((0, 0), (1, 1), (40, 320), 24) + arc((0.35, 0), (0.75, 0.75), (300, 60), 18),
    "rectangle": [(-1.2, -0.55), (1.2, -0.55), (1.2, 0.55), (-1.2, 0.55)],
}
NUMBERS = ("", "a", "two", "three", "four")
# halves of the page, as (x, y, w, h)
UPPER, LOWER = (0, 0, 64, 32), (0, 32, 64, 32)
LEFT, RIGHT = (0, 0, 32, 64), (32, 0, 32, 64)
RELATIONS = (  # where the first group lies, where the second, and how to say that
    (UPPER, LOWER, ("above", "over", "on top of")),
    (LOWER, UPPER, ("below", "under")),
    (LEFT, RIGHT, ("to the left of", "left of")),
    (RIGHT, LEFT, ("to the right of", "right of")),
)
SIZES = {"small": 0.62, "": 1.0, "large": 1.4}
ACTIONS = list(toy.ACTIONS.values())


def article(words: str) -> str:
    """The words with a or an before them."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def page_of(colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty page, to be reduced when it is drawn, and what draws on it."""
    page = Image.new("RGB", (64 * OVERSAMPLING,) * 2, colour)
    return page, ImageDraw.Draw(page)


def monster_scene(r: Random, monsters: list, actions) -> tuple[Image.Image, str]:
    """A monster of the list in one of the actions, with one of its many descriptions."""
    monster, action = r.choice(monsters), r.choice(actions)
    text = toy.describe(monster, r, r.choice(toy.PARTIAL) if r.random() < 0.2 else None)
    return toy.draw(monster, action, r), f"{text} {toy.ACTIONS[action]}".strip()


def group(r: Random, canvas, box, exclude: str) -> str:
    """One to four like shapes in a box (x, y, w, h) of the page; returns the words for them.

    exclude: the colour of the page, which they do not have
    """
    colour = r.choice([name for name in COLOURS if name != exclude])
    shape = r.choice(tuple(SHAPES))
    count = r.choice((1, 1, 1, 2, 3, 4))
    size = r.choice(("", "", "small", "large"))
    share = {1: 0.34, 2: 0.22, 3: 0.18, 4: 0.17}[count]  # of the box's short side
    radius = SIZES[size] * r.uniform(0.85, 1.05) * min(box[2:]) * share
    for k in range(count):
        x, y = place_in(box, k, count)
        centre = (
            OVERSAMPLING * (x + r.uniform(-1.5, 1.5)),
            OVERSAMPLING * (y + r.uniform(-1.5, 1.5)),
        )
        pen = Pen(canvas, centre, radius * OVERSAMPLING, r.uniform(-0.25, 0.25))
        shade = mix(COLOURS[colour], r.choice((WHITE, (0, 0, 0))), r.uniform(0, 0.12))
        pen.polygon(SHAPES[shape], shade)
        if shape == "ring":
            pen.ellipse((0, 0), (0.55, 0.55), COLOURS[exclude])
    what = " ".join(word for word in (size, colour, shape) if word)
    if count == 1:
        return article(what)
    return f"{NUMBERS[count]} {what}{'es' if shape == 'cross' else 's'}"


def place_in(box, k: int, count: int) -> tuple[float, float]:
    """Where shape k of count lies in a box (x, y, w, h): side by side, or four in a square."""
    x, y, w, h = box
    if count == 4:
        return x + w * (0.28 + 0.44 * (k % 2)), y + h * (0.28 + 0.44 * (k // 2))
    along = (k + 0.5) / count - 0.5  # from the middle, in units of the long side
    if w >= h:
        return x + w / 2 + w * along * 0.9, y + h / 2
    return x + w / 2, y + h / 2 + h * along * 0.9


def shape_scene(r: Random) -> tuple[Image.Image, str]:
    """One or two groups of shapes on a coloured ground: "a red circle above two blue squares"."""
    ground = r.choice(("white", "white", "white", *COLOURS))
    page, canvas = page_of(COLOURS[ground])
    if r.random() < 0.45:
        box = (4, 4, 56, 56)
        if r.random() < 0.5:
            box = (r.uniform(0, 24), r.uniform(0, 24), 40, 40)
        text = group(r, canvas, box, ground)
    else:
        first_box, second_box, words = r.choice(RELATIONS)
        first = group(r, canvas, first_box, ground)
        relation = r.choice(words)
        second = group(r, canvas, second_box, ground)
        text = f"{first} {relation} {second}"
    if ground != "white" or r.random() < 0.2:
        ending = r.choice((" on {} background", " on {} ground", ", {} background"))
        text += ending.format(f"a {ground}" if r.random() < 0.8 else ground)
    return page.reduce(OVERSAMPLING), text


def solid(pen: Pen, shape: str, colour, shine: float):
    """A sphere, cube or cylinder with light from the upper left."""
    light, dark = mix(colour, WHITE, 0.3), mix(colour, (0, 0, 0), 0.35)
    pen.ellipse((0.35, 0.75), (1.15, 0.4), (88, 88, 88))
    if shape == "sphere":
        pen.ellipse((0, 0), (1, 1), dark)
        pen.ellipse((-0.08, -0.1), (0.88, 0.86), colour)
        pen.ellipse((-0.3, -0.38), (0.32, 0.28), mix(colour, WHITE, shine))
    elif shape == "cube":
        pen.polygon([(-0.95, -0.5), (0.1, -0.15), (0.1, 1.05), (-0.95, 0.65)], colour)
        pen.polygon([(0.1, -0.15), (0.95, -0.55), (0.95, 0.6), (0.1, 1.05)], dark)
        pen.polygon([(-0.95, -0.5), (-0.1, -0.9), (0.95, -0.55), (0.1, -0.15)], light)
    else:
        side = arc((0, 0.7), (0.75, 0.33), (0, 180), 13)
        pen.polygon([(0.75, -0.6), *side, (-0.75, -0.6)], colour)
        pen.polygon([(0.3, -0.5), *side[:5], (0.75, -0.6)], dark)
        pen.polygon(
            [(-0.5, -0.4), (-0.32, -0.35), (-0.32, 0.9), (-0.5, 0.85)], mix(colour, WHITE, shine)
        )
        pen.ellipse((0, -0.6), (0.75, 0.33), light)


def solid_scene(r: Random) -> tuple[Image.Image, str]:
    """One to three solids on a gray table, in i-CLEVR's words: "a cyan cube and a red sphere"."""
    shade = r.randint(118, 140)
    page, canvas = page_of((shade,) * 3)
    canvas.rectangle((0, 0, 192, r.randint(50, 80)), fill=(shade - 12,) * 3)
    kinds = r.sample(
        [(c, s) for c in SOLID_COLOURS for s in ("cube", "sphere", "cylinder")],
        r.choice((1, 2, 2, 3)),
    )
    places = []
    while len(places) < len(kinds):
        place = r.uniform(9, 55), r.uniform(22, 52)
        if all(abs(place[0] - x) + abs(place[1] - y) > 13 for x, y in places):
            places.append(place)
    far_first = sorted(zip(places, kinds, strict=True), key=lambda pair: pair[0][1])
    for (x, y), (colour, shape) in far_first:
        scale = r.choice((4.5, 7)) + (y - 37) / 15
        pen = Pen(
            canvas,
            (x * OVERSAMPLING, y * OVERSAMPLING),
            scale * OVERSAMPLING,
            r.uniform(-0.05, 0.05),
        )
        solid(pen, shape, SOLID_COLOURS[colour], r.choice((0.35, 0.8)))
    names = [r.choice(("a {} {}", "a {} {}", "{} {}")).format(*kind) for kind in kinds]
    if r.random() < 0.3 or len(names) == 1:
        text = ", ".join(names)
    else:
        text = f"{', '.join(names[:-1])} and {names[-1]}"
    return page.reduce(OVERSAMPLING), text


def pattern_scene(r: Random) -> tuple[Image.Image, str]:
    """Stripes, checks, dots, a gradient or a plain page in two colours."""
    (one, a), (two, b) = r.sample(tuple(COLOURS.items()), 2)
    kind = r.choice(
        (
            "horizontal stripes",
            "vertical stripes",
            "diagonal stripes",
            "checks",
            "dots",
            "gradient",
            "plain",
        )
    )
    y, x = np.mgrid[0:64, 0:64] + r.uniform(0, 20)
    width = r.uniform(5, 13)
    waves = {"horizontal stripes": y, "vertical stripes": x, "diagonal stripes": (x + y) / 1.4}
    if kind in waves:
        share = np.clip(4 * np.sin(pi * waves[kind] / width) + 0.5, 0, 1)
    elif kind == "checks":
        share = np.clip(8 * np.sin(pi * x / width) * np.sin(pi * y / width) + 0.5, 0, 1)
    elif kind == "dots":
        share = np.clip(
            8 * (np.cos(pi * x / width / 1.5) * np.cos(pi * y / width / 1.5)) ** 2 - 3, 0, 1
        )
    elif kind == "gradient":
        share = 1 - np.mgrid[0:64, 0:64][r.randint(0, 1)] / 63
    else:
        share = np.ones((64, 64))
    texts = {
        "plain": f"a plain {one} picture",
        "gradient": f"a gradient from {one} to {two}",
        "dots": f"{one} dots on {two}",
    }
    pixels = np.array(a) * share[..., None] + np.array(b) * (1 - share[..., None])
    return Image.fromarray(pixels.astype(np.uint8)), texts.get(kind, f"{one} and {two} {kind}")


def captioned_picture(
    r: Random, monsters: list, actions=tuple(toy.ACTIONS)
) -> tuple[Image.Image, str]:
    """One picture of 64x64 with its caption; monsters and actions are the lists to choose from."""
    choice = r.random()
    if choice < 0.4:
        return monster_scene(r, monsters, actions)
    if choice < 0.7:
        return shape_scene(r)
    if choice < 0.92:
        return solid_scene(r)
    return pattern_scene(r)


LOOKS = """
armored black and gold blue glowing bald big blind bony bright bronze bulky cartoonish crystal
curled curved cute dark evil fat feathered fiery flaming floating fluffy furry ghostly giant
glowing golden grassy green and brown hairy happy hollow horned humanoid hunched icy large leafy
long-haired long-necked masked mechanical metallic misty muscular mystical old one-eyed orange and
black pale pixelated purple and white ragged red and white round rusty sad scaly shadowy sharp
shiny silver skeletal slender slimy small smiling smoky spiked spiky spotted stone striped tall
tattered tiny transparent turquoise twisted two-headed violet winged wooden wrinkled yellow young
beige crimson teal navy pink
"""
CREATURES = """
alien angel ant armadillo bat bear bee beetle bird boar bug bull butterfly camel cat centipede
chicken clown cow crab crocodile crow cyclops deer demon dinosaur dog dolphin donkey dragon duck
eagle elephant elf fairy fish flower fox frog ghost giant giraffe goat goblin golem gorilla
hedgehog hippo horse insect jellyfish kangaroo king knight koala lion lizard lobster mage mammoth
mermaid mole monkey monster moth mouse mummy mushroom ninja octopus orc ostrich owl panda parrot
peacock penguin pig pirate plant pumpkin queen rabbit raccoon rat raven reptile rhino robot
rooster samurai scorpion seal shark sheep skeleton slime snail snake soldier spider spirit squid
squirrel statue swan tiger toad tree troll turtle unicorn vampire vulture walrus warrior whale
wizard wolf worm zebra zombie man woman child
"""
THINGS = """
antennae antlers apron armor arrow axe backpack ball banana banner beak beard bell belt bench
bicycle blade boat bone book boots bottle bow bowl box bracelet branches broom bus cake candle
cannon cap cape car chain chair chest claws cloak clock club coat collar crossbow crown crystals
cup dagger door dress drum ears fan fangs feathers fins fire flag flames flute fork fur glasses
gloves guitar gun hair halo hammer hands hat head headband helmet hood hook horns house jewels jar
key knife ladder lamp lance lantern leaves legs lightning mace mane mask mirror mouth mustache
necklace net orb paddle pants paws pearl petals pillow plane plate roots rope ring robe rocket
rocks scales scarf scepter scroll scythe shell shield shirt shoes shoulder pads skirt skull
sneaker spear spikes spots staff stars stick stinger stripes sword table tail teeth tentacles
thorns tongue torch train trident trousers truck tusks umbrella vase veil vest vines wand wheel
whip whiskers wings book sofa television telephone keyboard laptop camera piano violin apple
orange pear
"""
PLACES = """
beach bridge building bush castle cave city cloud desert earth fence field forest garden grass
hill ice island lake land lava mountain path pier railing river road rock sand sea ship sky snow
space street sun swamp temple wall water waterfall window winter summer autumn spring night day
sunset rain storm
"""
VERBS = """
holding wielding wearing carrying with riding eating throwing guarding without showing beside
behind near under and
"""
SENTENCES = (
    "a {l} {c} with {t} and {t}",
    "{l} {c} monster {v} a {t}",
    "{l}, {l} {c} with {t}, {t}, and {t}",
    "a {c} and a {t}",
    "a photo of a {l} {c}",
    "pixel art of a {l} {c} {v} a {t} and a {t}",
    "a {l} {t} near a {p}",
    "{p} and {p} under {l} {p}",
    "small {l} creature, {l} {t}, {v} a {l} {t}",
    "a {c} {v} a {t} in the {p}",
    "a painting of a {l} {p} with {t}",
    "cartoonish {c} in {l} armor, {v} {l} {t}. {a}",
    "{l} {c}-like monster with {l} {t} and a {t}. {a}",
    "{t} {c} {l} {v} {p}",
)
LISTS = {
    "l": LOOKS.split(),
    "c": CREATURES.split(),
    "t": THINGS.split(),
    "p": PLACES.split(),
    "v": VERBS.split(),
}
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789.,:;!?'\"()-+#%&/",
    (0x4E00, 0x9FA5),
    (0x1F300, 0x1F64F),
    (0xA1, 0x24F),
    (0x3041, 0x30FE),
)


def caption(r: Random) -> str:
    """A caption without a picture, of common words, now and then with signs of some script."""
    text = r.choice(SENTENCES)
    for slot in ("{l}", "{c}", "{t}", "{p}", "{v}"):
        while slot in text:
            text = text.replace(slot, r.choice(LISTS[slot[1]]), 1)
    words = text.replace("{a}", r.choice(ACTIONS)).split()
    if r.random() < 0.3:
        alphabet = r.choice(ALPHABETS)
        count = r.randint(1, 6)
        signs = alphabet if isinstance(alphabet, str) else [chr(k) for k in range(*alphabet)]
        place = r.randint(0, len(words))
        words.insert(place, "".join(r.choice(signs) for _ in range(count)))
    return " ".join(words)
