"""How a toy monster is drawn: body, feature, face, and the cue of its action."""

from __future__ import annotations

from math import cos, hypot, pi, sin
from random import Random

from PIL import Image, ImageDraw

COLOURS = {
    "red": (222, 38, 42),
    "orange": (255, 136, 12),
    "yellow": (255, 222, 40),
    "green": (52, 172, 62),
    "blue": (42, 98, 232),
    "purple": (136, 52, 196),
    "pink": (255, 138, 196),
    "gray": (136, 140, 146),
}
INK, WHITE, IVORY, GOLD, SHADOW = (
    (28, 24, 36),
    (255, 255, 255),
    (236, 206, 140),
    (255, 200, 30),
    (206, 206, 214),
)
OVERSAMPLING = 3


class Pen:
    """Draws in body units: the origin is the middle of the body, y points down, 1 is about half its height.

    Points are scaled, tilted (radians, clockwise) and moved to `centre` in pixels of the large canvas.
    """

    def __init__(
        self,
        canvas: ImageDraw.ImageDraw,
        centre: tuple[float, float],
        scale: float,
        tilt: float = 0.0,
    ):
        self.canvas, self.centre, self.scale = canvas, centre, scale
        self.cos, self.sin = cos(tilt), sin(tilt)

    def place(self, points) -> list[tuple[float, float]]:
        """Body units to pixels."""
        (cx, cy), k, c, s = self.centre, self.scale, self.cos, self.sin
        return [(cx + k * (c * x - s * y), cy + k * (s * x + c * y)) for x, y in points]

    def polygon(self, points, fill, outline=None, width: float = 0.1):
        """Fill a polygon, and draw its outline if it has a colour."""
        placed = self.place(points)
        self.canvas.polygon(placed, fill)
        if outline:
            self.canvas.line(
                placed + placed[:2], outline, max(1, round(width * self.scale)), joint="curve"
            )

    def ellipse(self, x, y, rx, ry, fill, outline=None, width: float = 0.1):
        """An ellipse around (x, y), drawn as a polygon so that it tilts with the rest."""
        self.polygon(arc(x, y, rx, ry, 0, 350, 24), fill, outline, width)

    def line(self, points, fill, width: float):
        """A line through the points, with round ends."""
        placed, r = self.place(points), width * self.scale / 2
        self.canvas.line(placed, fill, max(1, round(2 * r)), joint="curve")
        for x, y in (placed[0], placed[-1]):
            self.canvas.ellipse((x - r, y - r, x + r, y + r), fill)


def arc(x, y, rx, ry, start, end, n) -> list[tuple[float, float]]:
    """n points of an ellipse from start to end, in degrees clockwise from the right."""
    angles = (pi / 180 * (start + (end - start) * k / (n - 1)) for k in range(n))
    return [(x + rx * cos(a), y + ry * sin(a)) for a in angles]


def mix(colour, other, share: float) -> tuple[int, ...]:
    """colour moved towards other by share (0 to 1)."""
    return tuple(round(a + (b - a) * share) for a, b in zip(colour, other))


def star(
    points: int, outer: float, inner: float, x: float = 0.0, y: float = 0.0, turn: float = -90.0
):
    """The outline of a star whose first point lies at turn degrees."""
    radii = [outer if k % 2 == 0 else inner for k in range(2 * points)]
    angles = [(turn + 180 * k / points) * pi / 180 for k in range(2 * points)]
    return [(x + r * cos(a), y + r * sin(a)) for r, a in zip(radii, angles)]


def rounded(corners, r: float) -> list[tuple[float, float]]:
    """The polygon with each corner replaced by a curve that begins r before it."""
    points = []
    for (ax, ay), (bx, by), (cx, cy) in zip(
        corners[-1:] + corners[:-1], corners, corners[1:] + corners[:1]
    ):
        before, after = r / hypot(ax - bx, ay - by), r / hypot(cx - bx, cy - by)
        px, py, qx, qy = (
            before * (ax - bx),
            before * (ay - by),
            after * (cx - bx),
            after * (cy - by),
        )
        for u in (0, 0.25, 0.5, 0.75, 1):  # a quadratic Bezier curve
            p, q = (1 - u) ** 2, u**2
            points.append((bx + p * px + q * qx, by + p * py + q * qy))
    return points


HEM = [
    (0.95, 0.95),
    (0.6, 0.62),
    (0.32, 1.05),
    (0, 0.68),
    (-0.32, 1.05),
    (-0.6, 0.62),
    (-0.95, 0.95),
]
BODIES = {  # the outline of each shape
    "round": arc(0, 0, 1, 1, 0, 350, 32),
    "square": rounded([(1.08, -1), (1.08, 1), (-1.08, 1), (-1.08, -1)], 0.12),
    "triangular": rounded([(0, -1.4), (1.3, 0.95), (-1.3, 0.95)], 0.3),
    "star-shaped": rounded(star(5, 1.5, 0.84, y=0.08), 0.22),
    "ghost-like": arc(0, -0.1, 0.95, 1.1, 180, 360, 17) + HEM,
    "mushroom-like": [
        *arc(0, 0.12, 1.45, 1.2, 180, 360, 17),
        (0.55, 0.3),
        (0.55, 1),
        (-0.55, 1),
        (-0.55, 0.3),
    ],
}
FACE = {
    "triangular": 0.28,
    "star-shaped": 0.1,
    "mushroom-like": -0.3,
}  # how low the middle of the eyes lies
FEATURES = ("horns", "wings", "spikes", "tail", "crown")
EYES = {  # where the eyes are and how large
    1: ([(0, -0.05)], 0.52),
    2: ([(-0.43, 0), (0.43, 0)], 0.39),
    3: ([(-0.4, 0.2), (0.4, 0.2), (0, -0.42)], 0.34),
}


def rim(shape: str, degrees: float) -> tuple[float, float]:
    """Where the ray from the middle of the body at that angle leaves its outline."""
    dx, dy, outline, best = cos(degrees * pi / 180), sin(degrees * pi / 180), BODIES[shape], 0.0
    for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1]):
        ex, ey = bx - ax, by - ay
        across = dx * ey - dy * ex
        if abs(across) > 1e-9 and 0 <= (ax * dy - ay * dx) / across <= 1:
            best = max(best, (ax * ey - ay * ex) / across)
    return best * dx, best * dy


RIMS = {
    (shape, a): rim(shape, a)
    for shape in BODIES
    for a in (-132, -48, *range(-190, 11, 40), -90, -8, -172, 32)
}


def draw_feature(pen: Pen, shape: str, feature: str, colour, dark, swing: float):
    """Horns, wings, spikes or a tail, behind the body; swing in [-1, 1] moves what can move."""
    if feature == "horns":
        for side, angle in ((1, -48), (-1, -132)):
            x, y = RIMS[shape, angle]
            horn = [
                (-0.3, 0.1),
                (0.34, 0.34),
                (0.72, -0.22),
                (0.62, -0.85),
                (0.34, -0.4),
                (-0.1, -0.3),
            ]
            pen.polygon(
                [(x + side * (dx - 0.12), y + dy) for dx, dy in horn],
                IVORY,
                mix(IVORY, INK, 0.25),
                0.1,
            )
    elif feature == "wings":
        for side, angle in ((1, -8), (-1, -172)):
            x, y = RIMS[shape, angle]
            lift = 0.22 * swing
            wing = [
                (-0.25, -0.3),
                (0.35, -0.95 - lift),
                (1.05, -1.2 - lift),
                (0.98, -0.4 - lift / 2),
                (0.7, -0.42),
                (0.66, 0.12),
                (0.38, 0.0),
                (0.2, 0.42),
                (-0.25, 0.3),
            ]
            pen.polygon(
                [(x + side * dx, y + dy) for dx, dy in wing], mix(colour, WHITE, 0.55), colour, 0.11
            )
    elif feature == "spikes":
        for angle in range(-190, 11, 40):
            (x, y), dx, dy = RIMS[shape, angle], cos(angle * pi / 180), sin(angle * pi / 180)
            base = [(-0.25, -0.36), (-0.25, 0.36), (0.6, 0)]
            pen.polygon(
                [(x + dx * u - dy * v, y + dy * u + dx * v) for u, v in base], dark, dark, 0.05
            )
    elif feature == "tail":
        x, y = (1.0, 0.55) if shape == "mushroom-like" else RIMS[shape, 32]
        curve = [(-0.5, -0.3), (0, 0.05), (0.42, 0.1), (0.75, -0.15), (0.82, -0.55 + 0.1 * swing)]
        tail = [(x + dx, y + dy) for dx, dy in curve]
        pen.line(tail, dark, 0.46)
        pen.line(tail, colour, 0.25)
        tx, ty = tail[-1]
        pen.polygon([(tx, ty - 0.72), (tx + 0.42, ty), (tx - 0.42, ty)], dark, dark, 0.06)


def draw_crown(pen: Pen, shape: str):
    """A golden crown, over the top of the body."""
    x, y = RIMS[shape, -90]
    y += 0.3 if shape in ("triangular", "star-shaped") else 0.12
    points = [
        (-0.55, 0),
        (-0.68, -0.72),
        (-0.28, -0.36),
        (0, -0.86),
        (0.28, -0.36),
        (0.68, -0.72),
        (0.55, 0),
    ]
    pen.polygon([(x + dx, y + dy) for dx, dy in points], GOLD, (224, 160, 10), 0.12)


def draw_face(pen: Pen, shape: str, eyes: int, action: str, dark):
    """Eyes (crosses for pupils when dying) and the mouth of the action."""
    places, r = EYES[eyes]
    look = 0.35 if action == "move" else 0.0
    low = FACE.get(shape, -0.12)
    for x, y in ((x, y + low) for x, y in places):
        pen.ellipse(x, y, r, r, WHITE, dark, 0.1)
        if action == "die1":
            d = 0.5 * r
            pen.line([(x - d, y - d), (x + d, y + d)], INK, 0.16)
            pen.line([(x - d, y + d), (x + d, y - d)], INK, 0.16)
        else:
            pen.ellipse(x + look * r, y, 0.55 * r, 0.55 * r, INK)
    y = low + (0.62 if eyes < 3 else 0.66)
    if action in ("attack1", "skill1", "jump"):  # a wide open mouth; teeth when attacking
        pen.polygon(arc(0, y - 0.08, 0.36, 0.3, 0, 180, 9), (120, 16, 32), INK, 0.06)
        if action == "attack1":
            for side in (-1, 1):
                pen.polygon(
                    [(side * 0.3, y - 0.08), (side * 0.08, y - 0.08), (side * 0.19, y + 0.12)],
                    WHITE,
                )
    elif action in ("hit1", "die1"):
        pen.ellipse(0, y, 0.14, 0.14, INK)
    elif action == "stand":
        pen.line([(-0.22, y), (0.22, y)], INK, 0.11)
    else:
        pen.line(arc(0, y - 0.15, 0.3, 0.24, 20, 160, 7), INK, 0.11)


def draw_limbs(pen: Pen, shape: str, action: str, colour, dark, swing: float):
    """Feet and arms, behind the body; a ghost has no feet and a portrait has neither."""
    if action == "main":
        return
    stride = {"move": 0.32 + 0.2 * swing, "jump": -0.12}.get(action, 0.0)
    if shape != "ghost-like":
        width = 0.3 if shape == "mushroom-like" else 0.5
        for side in (-1, 1):
            x, y = side * (width + stride), 1.08 - (0.18 if action == "move" and side > 0 else 0)
            pen.ellipse(x + 0.08, y, 0.36, 0.23, dark)
    arms = {
        "attack1": [(0.85, 0.1), (1.45, -0.2)],
        "jump": [(0.9, -0.2), (1.45, -0.85)],
        "skill1": [(0.9, -0.2), (1.45, -0.85)],
        "move": [(0.8, 0.3), (1.3, 0.3)],
    }
    arm = arms.get(action, [(0.75, 0.25), (1.2, 0.72)])
    for side in (-1, 1):
        pen.line([(side * x, y) for x, y in arm], dark, 0.3)


def draw_body(pen: Pen, shape: str, colour, dark):
    """The body; a mushroom has a pale stem, and spots on its cap."""
    pen.polygon(BODIES[shape], colour, dark, 0.13)
    if shape == "mushroom-like":
        stem = [(0.55, 0.2), (0.55, 1), (-0.55, 1), (-0.55, 0.2)]
        pen.polygon(rounded(stem, 0.15), mix(colour, WHITE, 0.72), dark, 0.12)
        pen.polygon(arc(0, 0.12, 1.45, 1.2, 180, 360, 17), colour, dark, 0.13)
        for x, y, r in ((-0.98, -0.25, 0.2), (0.98, -0.25, 0.2)):
            pen.ellipse(x, y, r, r, mix(colour, WHITE, 0.8))


def draw_cue(pen: Pen, action: str, behind: bool, r: Random):
    """What tells the action apart: drawn behind the body or over it, in body units, untilted."""
    if action == "skill1" and behind:
        pen.polygon(star(12, 2.15, 1.55, turn=r.uniform(0, 30)), (255, 228, 100))
        pen.ellipse(0, 0, 1.62, 1.62, (200, 240, 255), (60, 200, 240), 0.16)
    elif action == "skill1":
        for angle in (-140, -40, 40, 140):
            a = (angle + r.uniform(-12, 12)) * pi / 180
            pen.polygon(star(4, 0.5, 0.14, 1.75 * cos(a), 1.75 * sin(a)), (40, 170, 235))
    elif action == "attack1" and not behind:  # claw marks
        for x in (1.4, 1.95):
            for side in (-1, 1):
                mark = [(x - 0.35, -1.25), (x + 0.2, -0.1), (x - 0.45, 1.2), (x - 0.2, -0.1)]
                pen.polygon([(side * dx, y) for dx, y in mark], (235, 30, 30))
    elif action == "hit1" and not behind:  # the stars of the impact
        for side in (-1, 1):
            pen.polygon(star(8, 0.78, 0.4, 1.35 * side, 0.5), (255, 120, 0))
            pen.polygon(star(8, 0.48, 0.26, 1.35 * side, 0.5), (255, 240, 80))
    elif action == "move" and behind:  # speed lines and dust
        for y, length in ((-0.6, 0.7), (0.05, 1.0), (0.7, 0.6)):
            pen.line([(-1.45 - length, y), (-1.45, y)], (110, 120, 140), 0.13)
        for x, size in ((-1.5, 0.3), (-1.95, 0.22)):
            pen.ellipse(x, 1.15, size, size, SHADOW)
    elif action == "jump" and behind:
        for x in (-0.6, 0, 0.6):
            pen.line([(x, 1.45), (x, 2.05 - abs(x) / 2)], (110, 120, 140), 0.13)
    elif action == "die1" and not behind:  # a halo, risen to the sky
        pen.ellipse(0, -2.3, 0.8, 0.27, WHITE, GOLD, 0.2)


# Where the middle of the body stands on the 64x64 page, its size in pixels, and its tilt in degrees
POSES = {
    "main": (32, 33.5, 16.5, 0),
    "stand": (32, 37, 13, 0),
    "move": (36, 37, 13, 14),
    "jump": (32, 25.5, 13, 0),
    "attack1": (32, 37, 13, 0),
    "hit1": (32, 37, 13, 0),
    "die1": (32, 34, 12.5, 180),
    "skill1": (32, 34, 12.5, 0),
}


def draw(monster, action: str, random: Random | int = 0, size: int = 64) -> Image.Image:
    """A monster in an action, RGB on white; random (a Random, or its seed) moves and shades it a little."""
    r = random if isinstance(random, Random) else Random(random)
    k, (x, y, scale, tilt) = size * OVERSAMPLING / 64, POSES[action]
    x -= {"main": 3.5}.get(action, 1.5) if monster.feature == "tail" else 0
    x, y, scale = x + r.uniform(-0.8, 0.8), y + r.uniform(-0.6, 0.6), scale * r.uniform(0.97, 1.03)
    tilt, swing = (tilt + r.uniform(-3, 3)) * pi / 180, r.uniform(-1, 1)
    colour = mix(COLOURS[monster.colour], r.choice((WHITE, INK)), r.uniform(0, 0.07))
    dark = mix(colour, INK, 0.4)
    page = Image.new("RGB", (size * OVERSAMPLING,) * 2, WHITE)
    canvas = ImageDraw.Draw(page)
    if action != "main":
        ground = Pen(canvas, (x * k, 55.5 * k), k)
        width = {"jump": 9, "die1": 12}.get(action, 14)
        ground.ellipse(0, 0, width, 3.2, SHADOW)
    upright, pen = (
        Pen(canvas, (x * k, y * k), scale * k),
        Pen(canvas, (x * k, y * k), scale * k, tilt),
    )
    draw_cue(upright, action, True, r)
    draw_limbs(pen, monster.shape, action, colour, dark, swing)
    draw_feature(pen, monster.shape, monster.feature, colour, dark, swing)
    draw_body(pen, monster.shape, colour, dark)
    if monster.feature == "crown":
        draw_crown(pen, monster.shape)
    draw_face(pen, monster.shape, monster.eyes, action, dark)
    draw_cue(upright, action, False, r)
    return page.reduce(OVERSAMPLING)
