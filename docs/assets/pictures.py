"""Pictures of every kind that a few lines of code can draw: what the tiny autoencoder learns from.

All drawing happens on canvases (s, s, 3) of float32 in [0, 1] at twice the size asked for, reduced
at the end, so that edges are anti-aliased. Colours, places and sizes are drawn from the generator
given: picture k of a seed is always the same, however many are drawn.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from tqdm import tqdm


def pictures(count: int, size: int = 64, seed: int = 0, progress: bool = False) -> np.ndarray:
    """Draw pictures 0 to count - 1 of seed: uint8 (count, size, size, 3)."""
    steps = tqdm(range(count), desc="drawing pictures", unit="image", disable=not progress)
    return np.stack([picture(np.random.default_rng((seed, k)), size) for k in steps])


def picture(rng: Generator, size: int = 64) -> np.ndarray:
    """Draw one picture of a random kind: uint8 (size, size, 3)."""
    kind = rng.choice(list(KINDS), p=[0.30, 0.32, 0.13, 0.10, 0.15])
    canvas = KINDS[kind](rng, 2 * size)
    if rng.random() < 0.12:
        share = rng.uniform(0.2, 0.8)
        canvas = share * canvas + (1 - share) * KINDS[rng.choice(list(KINDS))](rng, 2 * size)
    canvas = canvas.reshape(size, 2, size, 2, 3).mean((1, 3))
    if rng.random() < 0.3:  # low contrast around a colour of its own
        canvas = canvas.mean((0, 1)) + rng.uniform(0.15, 0.8) * (canvas - canvas.mean((0, 1)))
    if rng.random() < 0.5:  # the grain of a camera, grey or coloured
        grain = rng.normal(0, rng.uniform(0, 0.015), (size, size, rng.choice([1, 3])))
        canvas = canvas + grain
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def colour(rng: Generator) -> np.ndarray:
    """A colour (3,): any, a strong one, a dull one or a grey."""
    kind = rng.random()
    if kind < 0.2:
        return np.full(3, rng.random(), np.float32)
    if kind < 0.5:
        return rng.random(3, dtype=np.float32)
    hue = rng.random()
    saturation = rng.uniform(0.6, 1) if kind < 0.8 else rng.uniform(0.1, 0.6)
    value = rng.uniform(0.35, 1)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def clouds(rng: Generator, s: int, cells: int, channels: int = 1) -> np.ndarray:
    """Smooth noise (s, s, channels) in [0, 1], with about cells bumps along a side."""
    small = rng.random((channels, cells + 1, cells + 1), dtype=np.float32)
    large = [np.asarray(Image.fromarray(c).resize((s, s), Image.Resampling.BICUBIC)) for c in small]
    return np.stack(large, -1).clip(0, 1)


def grid(s: int) -> tuple[np.ndarray, np.ndarray]:
    """y and x of every pixel, both (s, s), in [0, 1]."""
    return np.mgrid[0:s, 0:s].astype(np.float32) / (s - 1)


def ground(rng: Generator, s: int) -> np.ndarray:
    """A flat colour or something soft: a gradient, a pool of light, a lit floor, clouds."""
    first = colour(rng)
    kind = rng.random()
    if kind < 0.3:
        return np.broadcast_to(first, (s, s, 3)).astype(np.float32)
    if rng.random() < 0.4:
        second = colour(rng)
    else:
        second = (first + rng.normal(0, 0.15, 3).astype(np.float32)).clip(0, 1)
    y, x = grid(s)
    if kind < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        share = 0.5 + (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) / np.sqrt(2)
    elif kind < 0.65:
        squared = (x - rng.random()) ** 2 + (y - rng.random()) ** 2
        share = np.exp(-squared / rng.uniform(0.05, 0.6))
    elif kind < 0.8:
        return first + (second - first) * clouds(rng, s, rng.integers(1, 6), rng.choice([1, 3]))
    else:
        share = floor_and_wall(rng, s)
    return first + (second - first) * share[..., None].clip(-0.2, 1.2)


def floor_and_wall(rng: Generator, s: int) -> np.ndarray:
    """Brightness (s, s) of a wall above a floor, with clouds of light and soft shadows."""
    y, x = grid(s)
    horizon = rng.uniform(0.1, 0.6)
    soft = rng.uniform(0.02, 0.15)
    wall = 1 / (1 + np.exp(((y - horizon) / soft).clip(-30, 30)))
    share = wall * rng.uniform(0.4, 1)
    share = share + clouds(rng, s, rng.integers(1, 4))[..., 0] * rng.uniform(0, 0.5)
    for _ in range(rng.integers(1, 4)):
        dy = y - rng.uniform(0, 1.1)
        dx = x - rng.uniform(-0.1, 1.1)
        strength = rng.uniform(0.1, 0.5)
        wide = rng.uniform(0.02, 0.3)
        high = rng.uniform(0.01, 0.2)
        share = share - strength * np.exp(-(dx**2 / wide + dy**2 / high))
    return share


def texture(rng: Generator, s: int) -> np.ndarray:
    """Stripes, checks, dots, rings, noise of several sizes, or waves."""
    y, x = grid(s)
    first = ground(rng, s)
    second = ground(rng, s)
    kind = rng.integers(5)
    angle = rng.uniform(0, np.pi)
    count = rng.uniform(1.5, 14)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    if kind == 0:
        share = np.sin(2 * np.pi * count * along)
    elif kind == 1:
        share = np.sin(np.pi * count * along) * np.sin(np.pi * count * across)
    elif kind == 2:
        share = np.sin(2 * np.pi * count * np.hypot(x - rng.random(), y - rng.random()))
    elif kind == 3:
        share = sum(clouds(rng, s, 2**k)[..., 0] * rng.uniform(0, 1) / k for k in range(1, 6))
        share = 3 * (share - share.mean()) / (share.std() + 1e-3)
    else:
        share = rng.normal(0, 1, (s // 2, s // 2)).repeat(2, 0).repeat(2, 1) * rng.uniform(0.1, 0.6)
    share = (0.5 + share * rng.choice([0.5, 2, 20])).clip(0, 1)[..., None].astype(np.float32)
    return first + (second - first) * share * rng.uniform(0.2, 1)


def paint(canvas: np.ndarray, draw) -> np.ndarray:
    """canvas after draw(ImageDraw), which works in 8 bits."""
    image = Image.fromarray((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    draw(ImageDraw.Draw(image))
    return np.asarray(image, dtype=np.float32) / 255


def ink(rng: Generator) -> tuple[int, int, int]:
    """A colour for Pillow."""
    return tuple(int(255 * c) for c in colour(rng))


def outline_of(rng: Generator, s: int, reach: float) -> list[tuple[float, float]]:
    """The corners of a random polygon or star, inside the canvas mostly."""
    corners = rng.integers(3, 9)
    cx, cy = rng.uniform(0.1, 0.9, 2) * s
    if rng.random() < 0.4:  # a star
        radii = np.where(np.arange(corners) % 2, rng.uniform(0.35, 1), 1)
    else:
        radii = np.ones(corners)
    if rng.random() < 0.5:
        even = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        angles = even + rng.uniform(0, 2 * np.pi)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    xs = cx + reach * radii * np.cos(angles)
    ys = cy + reach * radii * np.sin(angles)
    return list(zip(xs, ys, strict=True))


def shapes(rng: Generator, s: int) -> np.ndarray:
    """Flat shapes, some outlined, with small detail on them: dots, eyes, thin lines."""
    canvas = ground(rng, s) if rng.random() < 0.7 else texture(rng, s)
    outlined = rng.random() < 0.5

    def draw(pen: ImageDraw.ImageDraw):
        for _ in range(rng.integers(1, 7)):
            reach = s * rng.uniform(0.04, 0.4)
            cx, cy = rng.uniform(0.1, 0.9, 2) * s
            wide, high = reach, reach * rng.uniform(0.4, 1.6)
            box = (cx - wide, cy - high, cx + wide, cy + high)
            style = {"fill": ink(rng)}
            if outlined:
                style |= {
                    "outline": ink(rng) if rng.random() < 0.5 else (20, 20, 20),
                    "width": int(rng.integers(1, 5)),
                }
            kind = rng.integers(5)
            if kind < 2:
                pen.ellipse(box, **style)
            elif kind == 2:
                pen.rounded_rectangle(
                    box, radius=float(rng.choice([0, 0.2, 0.5]) * min(wide, high)), **style
                )
            elif kind == 3:
                pen.polygon(outline_of(rng, s, reach), **style)
            else:
                pen.pieslice(box, *sorted(rng.uniform(0, 360, 2)), **style)
            for _ in range(rng.integers(0, 4)):
                x = cx + rng.uniform(-0.7, 0.7) * wide
                y = cy + rng.uniform(-0.7, 0.7) * high
                detail(rng, pen, (x, y), s)

    return paint(canvas, draw)


def detail(rng: Generator, pen: ImageDraw.ImageDraw, place: tuple[float, float], s: int):
    """A dot, an eye or a short line at a place (x, y)."""
    x, y = place
    r = s * rng.uniform(0.008, 0.06)
    kind = rng.integers(3)
    if kind == 0:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink(rng))
    elif kind == 1:
        dx, dy = rng.uniform(-0.3, 0.3, 2) * r
        pupil = r * rng.uniform(0.3, 0.6)
        rim = (0, 0, 0) if rng.random() < 0.5 else None
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255), outline=rim)
        pen.ellipse(
            (x + dx - pupil, y + dy - pupil, x + dx + pupil, y + dy + pupil), fill=(0, 0, 0)
        )
    else:
        dx, dy = rng.normal(0, 3 * r, 2)
        pen.line((x, y, x + dx, y + dy), fill=ink(rng), width=int(rng.integers(1, 5)))


def strokes(rng: Generator, s: int) -> np.ndarray:
    """Text-like marks and bent lines, thin and thick."""

    def draw(pen: ImageDraw.ImageDraw):
        for _ in range(rng.integers(1, 6)):
            x, y = rng.uniform(0, 0.9, 2) * s
            if rng.random() < 0.5:
                letters = "".join(chr(c) for c in rng.integers(33, 127, rng.integers(1, 7)))
                pen.text(
                    (x, y), letters, fill=ink(rng), font_size=float(s * rng.uniform(0.1, 0.35))
                )
            else:
                points = np.cumsum(
                    np.vstack([[x, y], rng.normal(0, s * 0.12, (rng.integers(1, 8), 2))]), 0
                )
                pen.line(
                    [tuple(p) for p in points],
                    fill=ink(rng),
                    width=int(rng.integers(1, 9)),
                    joint="curve",
                )

    return paint(ground(rng, s), draw)


def solids(rng: Generator, s: int) -> np.ndarray:
    """Softly shaded spheres, cylinders and boxes with their shadows on a lit ground."""
    canvas = ground(rng, s).astype(np.float32)
    y, x = grid(s) * np.float32(s)
    light = rng.uniform(-0.7, 0.7)
    ambient = rng.uniform(0.35, 0.8)
    tints = [colour(rng) * rng.uniform(0.5, 1) for _ in range(rng.integers(1, 6))]
    for cy in np.sort(rng.uniform(0.1, 0.9, len(tints))) * s:
        cx = rng.uniform(0.08, 0.92) * s
        reach = s * rng.uniform(0.05, 0.16)
        tint = tints.pop()
        wide = reach * rng.uniform(0.75, 1.2)
        high = reach * rng.uniform(0.9, 1.5)
        dx = x - cx - light * wide
        dy = y - cy - high * 0.8
        shadow = np.exp(-(((dx / wide) ** 2 + (dy / (0.55 * high)) ** 2) ** rng.uniform(0.8, 2)))
        canvas = canvas * (1 - rng.uniform(0.1, 0.5) * shadow[..., None])
        draw_solid = SOLIDS[rng.integers(3)]
        place = ((x - cx) / wide, (y - cy) / high)
        canvas = draw_solid(rng, canvas, place, tint, light=light, ambient=ambient)
    return canvas


def lay(canvas: np.ndarray, inside: np.ndarray, tint: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """canvas with tint (3,) x shade (s, s) where inside (s, s) is true."""
    return np.where(inside[..., None], shade[..., None] * tint, canvas)


def sphere(rng, canvas, place, tint, *, light, ambient):
    """An ellipsoid with a shine; place: (u, v) of each pixel, in half its width and height."""
    u, v = place
    depth = np.sqrt((1 - u**2 - v**2).clip(0))
    shade = ambient + (1 - ambient) * (0.6 * depth - 0.5 * v - light * 0.5 * u).clip(0) * 1.3
    shine = rng.uniform(0, 0.5) * np.exp(
        -((u + light * 0.4) ** 2 + (v + 0.45) ** 2) / rng.uniform(0.01, 0.15)
    )
    return (
        lay(canvas, u**2 + v**2 < 1, tint, shade) + np.where(u**2 + v**2 < 1, shine, 0)[..., None]
    )


def cylinder(rng, canvas, place, tint, *, light, ambient):
    """An upright cylinder seen from a little above; place as in sphere."""
    u, v = place
    lid = rng.uniform(0.15, 0.4)
    bend = lid * np.sqrt((1 - u**2).clip(0))  # the round of the rim
    side = ambient + (1 - ambient) * (np.sqrt((1 - u**2).clip(0)) * 0.8 - light * 0.6 * u).clip(0)
    canvas = lay(canvas, (abs(u) < 1) & (v > lid - 1) & (v < 1 - lid + bend), tint, side)
    top = ambient + (1 - ambient) * rng.uniform(0.7, 1.2)
    return lay(canvas, u**2 + ((v - lid + 1) / lid) ** 2 < 1, tint, np.full_like(u, top))


def box(rng, canvas, place, tint, *, light, ambient):
    """A box with an edge in front, seen from a little above; place as in sphere."""
    u, v = place
    edge = rng.uniform(-0.8, 0.8)
    lid = rng.uniform(0.15, 0.35)
    left, right = ambient + (1 - ambient) * rng.uniform(0, 1, 2)
    # how far the front edge rises over the sides
    rise = lid * np.where(u < edge, (u + 1) / (1 + edge), (1 - u) / (1 - edge))
    within = abs(u) < 1
    canvas = lay(
        canvas,
        within & (v > -1 + lid) & (v < 1 - lid + rise),
        tint,
        np.where(u < edge, left, right),
    )
    back = lid * np.where(u < -edge, (u + 1) / (1 - edge), (1 - u) / (1 + edge))
    return lay(
        canvas, within & (v > -1 + lid - back) & (v < -1 + lid + rise), tint, np.ones_like(u)
    )


SOLIDS = (sphere, cylinder, box)
KINDS = {
    "shapes": shapes,
    "solids": solids,
    "texture": texture,
    "strokes": strokes,
    "ground": ground,
}
