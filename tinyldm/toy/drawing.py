"""How a toy monster is drawn: body, feature, face, and the cue of its action.

Lengths and places are in body units (see Pen) unless something else is said.
"""

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
INK = (28, 24, 36)
WHITE = (255, 255, 255)
IVORY = (236, 206, 140)
GOLD = (255, 200, 30)
SHADOW = (206, 206, 214)
OVERSAMPLING = 3  # a page is drawn so many times larger and then reduced


class Pen:
    """Draws in body units: from the middle of the body, 1 about half its height, y pointing down.

    Points are scaled, tilted (radians, clockwise) and moved to `centre`, in pixels of the canvas.
    """

    def __init__(
        self,
        canvas: ImageDraw.ImageDraw,
        centre: tuple[float, float],
        scale: float,
        tilt: float = 0.0,
    ):
        self.canvas = canvas
        self.centre = centre
        self.scale = scale
        self.cos = cos(tilt)
        self.sin = sin(tilt)

    def place(self, points) -> list[tuple[float, float]]:
        """Body units to pixels."""
        cx, cy = self.centre
        k, c, s = self.scale, self.cos, self.sin
        return [(cx + k * (c * x - s * y), cy + k * (s * x + c * y)) for x, y in points]

    def polygon(self, points, fill, outline=None, width: float = 0.1):
        """Fill a polygon, and draw its outline if it has a colour."""
        placed = self.place(points)
        self.canvas.polygon(placed, fill)
        if outline:
            closed = placed + placed[:2]
            self.canvas.line(closed, outline, max(1, round(width * self.scale)), joint="curve")

    def ellipse(self, centre, radii, fill, outline=None, *, width: float = 0.1):
        """An ellipse, drawn as a polygon so that it tilts with the rest."""
        self.polygon(arc(centre, radii, (0, 350), 24), fill, outline, width)

    def line(self, points, fill, width: float):
        """A line through the points, with round ends."""
        placed = self.place(points)
        r = width * self.scale / 2
        self.canvas.line(placed, fill, max(1, round(2 * r)), joint="curve")
        for x, y in (placed[0], placed[-1]):
            self.canvas.ellipse((x - r, y - r, x + r, y + r), fill)


def arc(centre, radii, degrees, n: int) -> list[tuple[float, float]]:
    """n points of an ellipse from one angle to another, in degrees clockwise from the right.

    centre: (x, y); radii: (rx, ry); degrees: (start, end)
    """
    x, y = centre
    rx, ry = radii
    start, end = degrees
    angles = (pi / 180 * (start + (end - start) * k / (n - 1)) for k in range(n))
    return [(x + rx * cos(a), y + ry * sin(a)) for a in angles]


def mix(colour, other, share: float) -> tuple[int, ...]:
    """The colour, moved towards the other one by a share from 0 to 1."""
    return tuple(round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))


def darker(colour) -> tuple[int, ...]:
    """The shade of outlines and limbs."""
    return mix(colour, INK, 0.4)


def star(points: int, outer: float, inner: float, *, centre=(0.0, 0.0), turn: float = -90.0):
    """The outline of a star whose first point lies at `turn` degrees."""
    x, y = centre
    outline = []
    for k in range(2 * points):
        radius = outer if k % 2 == 0 else inner
        angle = (turn + 180 * k / points) * pi / 180
        outline.append((x + radius * cos(angle), y + radius * sin(angle)))
    return outline


def mirrored(half, middle) -> list[tuple[float, float]]:
    """Points up to one in the middle, and from there the same on the other side."""
    return [*half, middle, *((-x, y) for x, y in reversed(half))]


def rounded(corners, r: float) -> list[tuple[float, float]]:
    """The polygon with each corner replaced by a curve from r before it to r after it."""
    points = []
    for k, (x, y) in enumerate(corners):
        ax, ay = corners[k - 1]
        bx, by = corners[(k + 1) % len(corners)]
        before = r / hypot(ax - x, ay - y)
        after = r / hypot(bx - x, by - y)
        px, py = before * (ax - x), before * (ay - y)  # from the corner to where the curve begins
        qx, qy = after * (bx - x), after * (by - y)  # and to where it ends
        for u in (0, 0.25, 0.5, 0.75, 1):  # a quadratic Bezier curve
            p, q = (1 - u) ** 2, u**2
            points.append((x + p * px + q * qx, y + p * py + q * qy))
    return points


HEM = mirrored([(0.95, 0.95), (0.6, 0.62), (0.32, 1.05)], (0, 0.68))
BODIES = {  # the outline of each shape
    "round": arc((0, 0), (1, 1), (0, 350), 32),
    "square": rounded([(1.08, -1), (1.08, 1), (-1.08, 1), (-1.08, -1)], 0.12),
    "triangular": rounded([(0, -1.4), (1.3, 0.95), (-1.3, 0.95)], 0.3),
    "star-shaped": rounded(star(5, 1.5, 0.84, centre=(0, 0.08)), 0.22),
    "ghost-like": arc((0, -0.1), (0.95, 1.1), (180, 360), 17) + HEM,
    "mushroom-like": [
        *arc((0, 0.12), (1.45, 1.2), (180, 360), 17),
        (0.55, 0.3),
        (0.55, 1),
        (-0.55, 1),
        (-0.55, 0.3),
    ],
}
# how low the middle of the eyes lies
FACE = {"triangular": 0.28, "star-shaped": 0.1, "mushroom-like": -0.3}
FEATURES = ("horns", "wings", "spikes", "tail", "crown")
# number of eyes -> where they are, and how large
EYES: dict[int, tuple[list[tuple[float, float]], float]] = {
    1: ([(0, -0.05)], 0.52),
    2: ([(-0.43, 0), (0.43, 0)], 0.39),
    3: ([(-0.4, 0.2), (0.4, 0.2), (0, -0.42)], 0.34),
}


def rim(shape: str, degrees: float) -> tuple[float, float]:
    """Where a ray from the middle of the body, at an angle clockwise from the right, leaves it."""
    dx, dy = cos(degrees * pi / 180), sin(degrees * pi / 180)
    outline = BODIES[shape]
    farthest = 0.0
    for k, (ax, ay) in enumerate(outline):
        bx, by = outline[(k + 1) % len(outline)]
        ex, ey = bx - ax, by - ay
        across = dx * ey - dy * ex
        if abs(across) < 1e-9:  # an edge along the ray
            continue
        along_edge = (ax * dy - ay * dx) / across  # 0 to 1 where the ray meets the edge
        if 0 <= along_edge <= 1:
            farthest = max(farthest, (ax * ey - ay * ex) / across)
    return farthest * dx, farthest * dy


SPIKES = range(-190, 11, 40)  # the angles at which spikes, horns, wings, tail and crown grow
HORNS = (-48, -132)
WINGS = (-8, -172)
TAIL = 32
TOP = -90
RIMS = {
    (shape, angle): rim(shape, angle)
    for shape in BODIES
    for angle in (*SPIKES, *HORNS, *WINGS, TAIL, TOP)
}


def draw_feature(pen: Pen, monster, colour, swing: float):
    """Horns, wings, spikes or a tail, behind the body; swing in [-1, 1] moves what can move."""
    shape, feature = monster.shape, monster.feature
    if feature == "horns":
        draw_horns(pen, shape)
    elif feature == "wings":
        draw_wings(pen, shape, colour, 0.22 * swing)
    elif feature == "spikes":
        draw_spikes(pen, shape, darker(colour))
    elif feature == "tail":
        draw_tail(pen, shape, colour, 0.1 * swing)


def draw_horns(pen: Pen, shape: str):
    """Two horns of ivory."""
    horn = [(-0.3, 0.1), (0.34, 0.34), (0.72, -0.22), (0.62, -0.85), (0.34, -0.4), (-0.1, -0.3)]
    for side, angle in zip((1, -1), HORNS, strict=True):
        x, y = RIMS[shape, angle]
        points = [(x + side * (dx - 0.12), y + dy) for dx, dy in horn]
        pen.polygon(points, IVORY, mix(IVORY, INK, 0.25), 0.1)


def draw_wings(pen: Pen, shape: str, colour, lift: float):
    """Two pale wings."""
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
    for side, angle in zip((1, -1), WINGS, strict=True):
        x, y = RIMS[shape, angle]
        points = [(x + side * dx, y + dy) for dx, dy in wing]
        pen.polygon(points, mix(colour, WHITE, 0.55), colour, 0.11)


def draw_spikes(pen: Pen, shape: str, dark):
    """Six spikes around the upper half of the body."""
    spike = [(-0.25, -0.36), (-0.25, 0.36), (0.6, 0)]
    for angle in SPIKES:
        x, y = RIMS[shape, angle]
        dx, dy = cos(angle * pi / 180), sin(angle * pi / 180)
        points = [(x + dx * u - dy * v, y + dy * u + dx * v) for u, v in spike]
        pen.polygon(points, dark, dark, 0.05)


def draw_tail(pen: Pen, shape: str, colour, lift: float):
    """A tail that ends in a triangle."""
    dark = darker(colour)
    x, y = (1.0, 0.55) if shape == "mushroom-like" else RIMS[shape, TAIL]
    curve = [(-0.5, -0.3), (0, 0.05), (0.42, 0.1), (0.75, -0.15), (0.82, -0.55 + lift)]
    tail = [(x + dx, y + dy) for dx, dy in curve]
    pen.line(tail, dark, 0.46)
    pen.line(tail, colour, 0.25)
    tip_x, tip_y = tail[-1]
    tip = [(tip_x, tip_y - 0.72), (tip_x + 0.42, tip_y), (tip_x - 0.42, tip_y)]
    pen.polygon(tip, dark, dark, 0.06)


def draw_crown(pen: Pen, shape: str):
    """A golden crown, over the top of the body."""
    x, y = RIMS[shape, TOP]
    y += 0.3 if shape in ("triangular", "star-shaped") else 0.12
    points = mirrored([(-0.55, 0), (-0.68, -0.72), (-0.28, -0.36)], (0, -0.86))
    pen.polygon([(x + dx, y + dy) for dx, dy in points], GOLD, (224, 160, 10), 0.12)


def draw_face(pen: Pen, monster, action: str, dark):
    """Eyes (crosses for pupils when dying) and the mouth of the action."""
    places, r = EYES[monster.eyes]
    look = 0.35 if action == "move" else 0.0
    low = FACE.get(monster.shape, -0.12)
    for x, height in places:
        y = height + low
        pen.ellipse((x, y), (r, r), WHITE, dark, width=0.1)
        if action == "die1":
            d = 0.5 * r
            pen.line([(x - d, y - d), (x + d, y + d)], INK, 0.16)
            pen.line([(x - d, y + d), (x + d, y - d)], INK, 0.16)
        else:
            pen.ellipse((x + look * r, y), (0.55 * r, 0.55 * r), INK)
    y = low + (0.62 if monster.eyes < 3 else 0.66)
    if action in ("attack1", "skill1", "jump"):  # a wide open mouth; teeth when attacking
        pen.polygon(arc((0, y - 0.08), (0.36, 0.3), (0, 180), 9), (120, 16, 32), INK, 0.06)
        if action == "attack1":
            for side in (-1, 1):
                pen.polygon(
                    [(side * 0.3, y - 0.08), (side * 0.08, y - 0.08), (side * 0.19, y + 0.12)],
                    WHITE,
                )
    elif action in ("hit1", "die1"):
        pen.ellipse((0, y), (0.14, 0.14), INK)
    elif action == "stand":
        pen.line([(-0.22, y), (0.22, y)], INK, 0.11)
    else:
        pen.line(arc((0, y - 0.15), (0.3, 0.24), (20, 160), 7), INK, 0.11)


def draw_limbs(pen: Pen, shape: str, action: str, *, dark, swing: float):
    """Feet and arms, behind the body; a ghost has no feet and a portrait has neither."""
    if action == "main":
        return
    stride = {"move": 0.32 + 0.2 * swing, "jump": -0.12}.get(action, 0.0)
    if shape != "ghost-like":
        width = 0.3 if shape == "mushroom-like" else 0.5
        for side in (-1, 1):
            lift = 0.18 if action == "move" and side > 0 else 0
            x, y = side * (width + stride), 1.08 - lift
            pen.ellipse((x + 0.08, y), (0.36, 0.23), dark)
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
        pen.polygon(arc((0, 0.12), (1.45, 1.2), (180, 360), 17), colour, dark, 0.13)
        for x, y, r in ((-0.98, -0.25, 0.2), (0.98, -0.25, 0.2)):
            pen.ellipse((x, y), (r, r), mix(colour, WHITE, 0.8))


def draw_cue(pen: Pen, action: str, *, behind: bool, r: Random):
    """What tells the action apart: drawn behind the body or over it, in body units, untilted."""
    if action == "skill1" and behind:
        pen.polygon(star(12, 2.15, 1.55, turn=r.uniform(0, 30)), (255, 228, 100))
        pen.ellipse((0, 0), (1.62, 1.62), (200, 240, 255), (60, 200, 240), width=0.16)
    elif action == "skill1":
        for angle in (-140, -40, 40, 140):
            a = (angle + r.uniform(-12, 12)) * pi / 180
            pen.polygon(star(4, 0.5, 0.14, centre=(1.75 * cos(a), 1.75 * sin(a))), (40, 170, 235))
    elif action == "attack1" and not behind:  # claw marks
        for x in (1.4, 1.95):
            for side in (-1, 1):
                mark = [(x - 0.35, -1.25), (x + 0.2, -0.1), (x - 0.45, 1.2), (x - 0.2, -0.1)]
                pen.polygon([(side * dx, y) for dx, y in mark], (235, 30, 30))
    elif action == "hit1" and not behind:  # the stars of the impact
        for side in (-1, 1):
            pen.polygon(star(8, 0.78, 0.4, centre=(1.35 * side, 0.5)), (255, 120, 0))
            pen.polygon(star(8, 0.48, 0.26, centre=(1.35 * side, 0.5)), (255, 240, 80))
    elif action == "move" and behind:  # speed lines and dust
        for y, length in ((-0.6, 0.7), (0.05, 1.0), (0.7, 0.6)):
            pen.line([(-1.45 - length, y), (-1.45, y)], (110, 120, 140), 0.13)
        for x, size in ((-1.5, 0.3), (-1.95, 0.22)):
            pen.ellipse((x, 1.15), (size, size), SHADOW)
    elif action == "jump" and behind:
        for x in (-0.6, 0, 0.6):
            pen.line([(x, 1.45), (x, 2.05 - abs(x) / 2)], (110, 120, 140), 0.13)
    elif action == "die1" and not behind:  # a halo, risen to the sky
        pen.ellipse((0, -2.3), (0.8, 0.27), WHITE, GOLD, width=0.2)


# Where the middle of the body stands on the 64x64 page, its size in pixels, and its tilt in degrees
POSES: dict[str, tuple[float, float, float, float]] = {
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
    """A monster in an action, an RGB image of size x size on white.

    random: a Random, or its seed; it moves, tilts and shades the monster a little.
    """
    r = random if isinstance(random, Random) else Random(random)
    k = size * OVERSAMPLING / 64  # pixels of the canvas for one of the 64x64 page
    x, y, scale, tilt = POSES[action]
    if monster.feature == "tail":  # leave it some room
        x -= 3.5 if action == "main" else 1.5
    x += r.uniform(-0.8, 0.8)
    y += r.uniform(-0.6, 0.6)
    scale *= r.uniform(0.97, 1.03)
    tilt = (tilt + r.uniform(-3, 3)) * pi / 180
    swing = r.uniform(-1, 1)
    colour = mix(COLOURS[monster.colour], r.choice((WHITE, INK)), r.uniform(0, 0.07))
    dark = darker(colour)

    page = Image.new("RGB", (size * OVERSAMPLING,) * 2, WHITE)
    canvas = ImageDraw.Draw(page)
    if action != "main":
        ground = Pen(canvas, (x * k, 55.5 * k), k)
        width = {"jump": 9, "die1": 12}.get(action, 14)
        ground.ellipse((0, 0), (width, 3.2), SHADOW)
    upright = Pen(canvas, (x * k, y * k), scale * k)
    pen = Pen(canvas, (x * k, y * k), scale * k, tilt)
    draw_cue(upright, action, behind=True, r=r)
    draw_limbs(pen, monster.shape, action, dark=dark, swing=swing)
    draw_feature(pen, monster, colour, swing)
    draw_body(pen, monster.shape, colour, dark)
    if monster.feature == "crown":
        draw_crown(pen, monster.shape)
    draw_face(pen, monster, action, dark)
    draw_cue(upright, action, behind=False, r=r)
    return page.reduce(OVERSAMPLING)
