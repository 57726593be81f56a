"""Images as they come from disk, their exact way to tensors and back, and augmentation."""

import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm.data.images import Augmentation, from_bytes, grid, load_image, resize, to_bytes, to_pil
from tinyldm.errors import InputError


def gradient(width=6, height=4) -> Image.Image:
    """An image whose pixels all differ."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([40 * x, 60 * y, 255 - 40 * x], -1).clip(0, 255).astype(np.uint8)
    )


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.mode == b.mode and a.tobytes() == b.tobytes()


def saved(image: Image.Image, path, **options) -> Image.Image:
    image.save(path, **options)
    return load_image(path)


def test_transparency_is_white_whatever_colour_lies_below(tmp_path):
    red = (255, 0, 0)
    rgba = Image.new("RGBA", (2, 1), (*red, 0))
    rgba.putpixel((1, 0), (*red, 255))
    la = Image.new("LA", (2, 1), (0, 0))
    la.putpixel((1, 0), (7, 255))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([*red, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for image, options, seen in [
        (rgba, {}, red),
        (la, {}, (7, 7, 7)),
        (palette, {"transparency": 0}, (0, 0, 255)),
        (palette, {"transparency": b"\0\xff"}, (0, 0, 255)),
    ]:
        result = saved(image, tmp_path / "x.png", **options)
        assert result.mode == "RGB"
        assert [result.getpixel((k, 0)) for k in range(2)] == [(255, 255, 255), seen]


def test_half_transparency_mixes_with_white(tmp_path):
    pixel = saved(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), tmp_path / "x.png").getpixel((0, 0))
    assert pixel == (204, 204, 204)  # 255 (1 - 51/255)


def test_sixteen_bit_grey_is_scaled(tmp_path):
    grey = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    assert np.array(saved(grey, tmp_path / "x.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_grey_and_bilevel_images(tmp_path):
    image = gradient()
    assert same(saved(image.quantize(256), tmp_path / "p.png"), image)
    assert same(saved(image.convert("L"), tmp_path / "l.png"), image.convert("L").convert("RGB"))
    assert saved(Image.new("1", (2, 2), 1), tmp_path / "1.png").getpixel((0, 0)) == (255, 255, 255)


def test_an_image_is_turned_upright(tmp_path):
    image, exif = gradient(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    assert same(
        saved(image, tmp_path / "x.png", exif=exif), image.transpose(Image.Transpose.ROTATE_270)
    )


def test_missing_and_broken_images_are_named(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(InputError, match=r"x.png: no such image"):
        load_image(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (
        b"",
        b"not an image",
        whole[: len(whole) // 2],
        whole[:200] + bytes(40) + whole[240:],
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x.png: not an image"):
            load_image(path)


def test_all_256_values_survive_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8).reshape(16, 16).expand(3, 16, 16)
    image = Image.fromarray(values.permute(1, 2, 0).numpy())
    tensor = from_bytes(to_bytes(image))
    assert same(to_pil(tensor), image)
    assert same(
        to_pil(tensor.half()), image
    )  # also through what the latent cache stores without a VAE
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert tensor.shape == (3, 16, 16)


def test_values_beyond_the_range_are_clipped():
    assert np.array(to_pil(torch.tensor([-9.0, 9.0, 0.0]).reshape(3, 1, 1))).tolist() == [
        [[0, 255, 128]]
    ]


def test_squash_keeps_all_and_crop_keeps_the_shape():
    """A disc in a wide image: squashed it is an ellipse, cropped it stays round."""
    wide = Image.new("RGB", (80, 40), "black")
    wide.paste("white", (30, 10, 50, 30))  # a square of 20 in the middle
    squashed, cropped = (
        np.array(resize(wide, 40, fit))[..., 0] > 127 for fit in ("squash", "crop")
    )
    assert squashed.any(0).sum() == 10
    assert squashed.any(1).sum() == 20
    assert cropped.any(0).sum() == 20
    assert cropped.any(1).sum() == 20
    assert resize(wide, (24, 16)).size == (16, 24)


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_an_image_of_the_right_size_is_left_as_it_is(fit):
    assert same(resize(gradient(), (4, 6), fit), gradient())


def test_views_are_mirrored_pairs_that_depend_on_seed_and_key_alone():
    augmentation = Augmentation(copies=2, crop=0.5, jitter=0.2)
    views = augmentation.apply(gradient(), (4, 6), key=7)
    assert len(views) == augmentation.views == 6
    assert same(views[0], gradient())
    for view, mirrored in zip(views[::2], views[1::2], strict=True):
        assert np.array_equal(np.array(view)[:, ::-1], np.array(mirrored))
    again = augmentation.apply(gradient(), (4, 6), key=7)
    assert all(map(same, views, again))
    assert not same(views[2], views[4])
    assert not same(views[2], augmentation.apply(gradient(), (4, 6), key=8)[2])
    assert not same(
        views[2],
        Augmentation(copies=2, crop=0.5, jitter=0.2, seed=1).apply(gradient(), (4, 6), key=7)[2],
    )


def test_crops_stay_inside_and_show_the_area_asked_for():
    """On a picture of its own coordinates, a crop's corners tell which part it is."""
    from tinyldm.data.images import random_box

    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = random_box((200, 100), 0.6, rng)
        assert 0 <= left < right <= 200 + 1e-9
        assert 0 <= top < bottom <= 100 + 1e-9
        assert 0.6 - 1e-9 <= (right - left) * (bottom - top) / 20000 <= 1 + 1e-9


def test_jitter_changes_brightness_by_no_more_than_asked():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    views = Augmentation(flip=False, copies=50, jitter=0.3).apply(grey, 8, key=1)[1:]
    values = [view.getpixel((0, 0))[0] for view in views]
    assert 69 <= min(values) < 80
    assert 120 < max(values) <= 131


@pytest.mark.parametrize(
    "wrong",
    [
        {"copies": -1},
        {"copies": 1},
        {"crop": 0.5},
        {"jitter": 0.1},
        {"copies": 1, "crop": 0.0},
        {"fit": "stretch"},
    ],
)
def test_settings_that_make_no_sense_or_would_be_ignored_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected|need"):
        Augmentation(**wrong)


def test_grid_places_images_in_rows():
    colours = [(k, 0, 0) for k in range(5)]
    sheet = grid([Image.new("RGB", (4, 3), colour) for colour in colours], columns=3, gap=1)
    assert sheet.size == (3 * 5 + 1, 2 * 4 + 1)
    assert [sheet.getpixel((1 + 5 * (k % 3), 1 + 4 * (k // 3))) for k in range(5)] == colours
    assert sheet.getpixel((0, 0)) == sheet.getpixel((12, 6)) == (255, 255, 255)
    assert grid([Image.new("RGB", (4, 4))] * 9, gap=0).size == (12, 12)
