"""Image files -> RGB images of one size -> tensors in [-1, 1], and back; augmentation; grids."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import ExifTags, Image, ImageDraw, ImageEnhance, ImageOps, UnidentifiedImageError
from torch import Tensor

from tinyldm.errors import InputError, reason
from tinyldm.files import check_regular, replacing
from tinyldm.folders import DRAWN
from tinyldm.randomness import plain_stream

FITS = ("squash", "crop")
MOST_PIXELS = 178_956_970  # of an image file, which is where Pillow stops as well
MOST_BYTES = 2**31  # of an image file; so many pixels have less, even if nothing is compressed
# (least, white): where the largest value of an image of floats or of 32 bits lies between the two,
# `white` is white. Between these ranges it would be unclear how dark the image is meant to be.
RANGES = ((0, 1), (16, 255), (4096, 65535))


def check_file(path: str | Path, kind: str = "image") -> None:
    """InputError unless there is a regular file that is not too large for an image.

    kind: what the file is called where it is missing
    """
    status = check_regular(path, kind, expected="an image file")
    if status.st_size > MOST_BYTES:
        raise InputError(
            f"{path}: has {status.st_size / 2**30:.1f} GiB, "
            f"expected an image file of at most {MOST_BYTES // 2**30} GiB"
        )


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn whatever the block raises about an image file into an InputError that names it.

    Pillow warns of images from half of its own bound on; ours says which are refused.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            yield
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: expected an image of at most {MOST_PIXELS // 10**6} million pixels"
        ) from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read (of no known format)") from None
    except (MemoryError, InputError):
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes
        raise InputError(f"{path}: not an image that can be read ({reason(error)})") from None


def read_image_file(path: str | Path) -> bytes:
    """The bytes of an image file. InputError as for open_image, as far as it can be told so far."""
    with readable(path):
        check_file(path)
        return Path(path).read_bytes()


@contextmanager
def open_image(
    path: str | Path, content: bytes | None = None, kind: str = "image"
) -> Iterator[Image.Image]:
    """The one way to open an image file: Pillow's image, of which only the header is read yet.

    content: the bytes of the file, if they have been read already
    InputError names the file where it is missing, broken, too large or no regular file; also where
    the block finds the pixels broken.
    """
    with readable(path):
        if content is None:
            check_file(path, kind)
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if image.format == "EPS":  # Pillow would have Ghostscript run it
                raise ValueError("a PostScript program")
            yield image


def load_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """The image of a file as RGB, upright, in 8 bits, transparency composited on white.

    Of floats and of whole numbers of 32 bits, the largest value tells which range they are in; see
    RANGES. content and InputError: as for open_image.
    """
    with open_image(path, content) as image:
        image.load()
        return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as load_image gives it; ValueError where its values are in none of the RANGES."""
    upright = ImageOps.exif_transpose(image)
    if _has_16_bits(image):
        return _from_grey(upright, white=65535)
    if image.mode in ("I", "F"):
        return _from_grey(upright, white=_white(np.asarray(upright)))
    return _from_8_bits(upright)


def read_anew(path: str | Path) -> bool:
    """Whether load_image has been corrected for an image like this since the first versions.

    They showed floats and 32 bits as black, and did not see the transparency of 16 bits.
    """
    try:
        with open_image(path) as image:
            if _has_16_bits(image):
                return "transparency" in image.info
            return image.mode in ("I", "F")
    except InputError:
        return False


def _has_16_bits(image: Image.Image) -> bool:
    """Whether an image that has just been opened holds whole numbers from 0 to 65535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _white(values: np.ndarray[Any, Any]) -> int:
    """The value of white in an image of floats or of 32 bits; ValueError where that is unclear."""
    low, high = float(values.min()), float(values.max())
    for least, white in RANGES:
        slack = white / 1000  # for what rounding has done to floats
        if low >= -slack and least <= high <= white + slack:
            return white
    raise ValueError(
        f"its values go from {low:g} to {high:g}, expected from 0 to 1, to 255 or to 65535"
    )


def _from_grey(image: Image.Image, white: int) -> Image.Image:
    """An image of one channel with more than 8 bits as RGB; its transparent value is white."""
    values = np.asarray(image)  # (h, w)
    grey = np.rint(values * (255 / white)).clip(0, 255).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_8_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits as RGB, its transparent parts on white."""
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size that is one number for a square, or both."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"--size {width}x{height}: expected at least 1")
    return height, width


def check_size(size: tuple[int, int], factor: int) -> None:
    """InputError for a size (h, w) that is not a multiple of the VAE's factor."""
    height, width = size
    if height % factor or width % factor:
        raise InputError(
            f"--size {width}x{height}: expected multiples of {factor}, "
            "by which the VAE shrinks images"
        )


Box = tuple[float, float, float, float]  # left, top, right, bottom


def resize(
    image: Image.Image,
    size: int | tuple[int, int],
    fit: str = "squash",
    box: Box | None = None,
    nearest: bool = False,
) -> Image.Image:
    """The image at a size, s or (h, w).

    fit:     "squash" it, or "crop" it around the centre to the shape asked for first
    box:     the part of the image to take instead of the whole
    nearest: make up no values, as for maps of class numbers
    """
    height, width = pair(size)
    left, top, right, bottom = box or (0, 0, *image.size)
    if fit == "crop":
        scale = min((right - left) / width, (bottom - top) / height)
        margin_x = (right - left - scale * width) / 2
        margin_y = (bottom - top - scale * height) / 2
        left, right = left + margin_x, right - margin_x
        top, bottom = top + margin_y, bottom - margin_y
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return image.resize((width, height), how, inside)


@dataclass(frozen=True)
class Augmentation:
    """The views of an image in the latent cache: the image, its copies, the mirror image of each.

    copies: so many further views, each of a part of the image, with other colours
    crop:   the least share of the area that a copy shows, at an aspect ratio of 3/4 to 4/3
    jitter: how far brightness, contrast and saturation of a copy may be from 1. The hue stays:
            captions name colours.
    seed:   of the copies
    fit:    "squash" or "crop", as in resize()
    """

    flip: bool = True
    copies: int = 0
    crop: float = 1.0
    jitter: float = 0.0
    seed: int = 0
    fit: str = "squash"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}, expected one of {', '.join(FITS)}")
        if self.copies < 0 or not 0 < self.crop <= 1 or not 0 <= self.jitter < 1:
            raise ValueError(f"{self}: expected copies >= 0, 0 < crop <= 1 and 0 <= jitter < 1")
        if bool(self.copies) != (self.crop < 1 or self.jitter > 0):
            raise ValueError(f"{self}: copies need crop < 1 or jitter > 0, and those need copies")

    @property
    def views(self) -> int:
        """How many views an image has."""
        return (1 + self.copies) * (1 + self.flip)

    def to_dict(self) -> dict[str, Any]:
        """What the views depend on; without copies that is not the seed."""
        values = asdict(self)
        if not self.copies:
            del values["seed"]
        return values

    def apply(
        self, image: Image.Image, size: int | tuple[int, int], key: int, nearest: bool = False
    ) -> list[Image.Image]:
        """All views of an image at a size. Crops and colours depend on (seed, key) alone.

        nearest: for a map of class numbers, whose views show what those of its image show
        """
        rng = plain_stream(self.seed, key)
        views = [resize(image, size, self.fit, nearest=nearest)]
        for _ in range(self.copies):
            box = random_box(image.size, self.crop, rng)
            part = resize(image, size, self.fit, box, nearest=nearest)
            factors = rng.uniform(1 - self.jitter, 1 + self.jitter, 3).tolist()
            views.append(part if nearest else jittered(part, factors))
        if not self.flip:
            return views
        both = []
        for view in views:
            both += [view, ImageOps.mirror(view)]
        return both


def random_box(size: tuple[int, int], crop: float, rng: np.random.Generator) -> Box:
    """A random part of an image (width, height): crop to 1 of its area, reshaped by 3/4 to 4/3."""
    share = rng.uniform(crop, 1)
    stretch = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    stretch = min(max(stretch, share), 1 / share)  # so that the part fits and keeps its area
    width = size[0] * math.sqrt(share * stretch)
    height = size[1] * math.sqrt(share / stretch)
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height


def jittered(image: Image.Image, factors: Sequence[float]) -> Image.Image:
    """The image with its brightness, contrast and saturation multiplied by three factors."""
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for change, factor in zip(changes, factors, strict=True):
        image = change(image).enhance(factor)
    return image


def to_bytes(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, h, w)."""
    return torch.from_numpy(rearrange(np.array(image), "h w c -> c h w").copy())


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1]; to_pil gives exactly the same image back."""
    return pixels.float() / 127.5 - 1


def to_pil(image: Tensor) -> Image.Image:
    """The RGB image of a tensor (3, h, w); values beyond [-1, 1] are clipped."""
    pixels = ((image.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(rearrange(pixels, "c h w -> h w c").contiguous().numpy())


def grid(
    images: list[Image.Image], columns: int | None = None, gap: int = 2, words: Sequence[str] = ()
) -> Image.Image:
    """The one contact sheet: images of one size in rows on white, left to right.

    columns: how many stand side by side; without it the sheet is as square as can be
    gap:     pixels between two images
    words:   one for each image, written above it
    """
    if words and len(words) != len(images):
        raise ValueError(f"{len(words)} words for {len(images)} images, expected one for each")
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    above = 12 if words else 0  # pixels for the words
    width = images[0].width + gap
    height = images[0].height + gap + above
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        left = gap + column * width
        top = gap + row * height
        if words:
            pen.text((left, top), words[place], fill="black")
        sheet.paste(image, (left, top + above))
    return sheet


def save_image(image: Image.Image, path: Path, signed: bool = False) -> None:
    """Write an image, all of it or nothing; the suffix gives the format.

    signed: let its Exif data say that it was drawn, so that --overwrite may remove it. A BMP has
            none.
    """
    options: dict[str, Any] = {}
    if signed:
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Software] = DRAWN
    with replacing(path) as temporary:
        image.save(temporary, quality=95, **options)


def save_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """Write an animated GIF that rests on its last frame and starts again."""
    pause = [250] * (len(frames) - 1) + [2000]  # milliseconds
    with replacing(path) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=pause, loop=0)
