"""What lies in a folder of images, and the first thing that is wrong with it."""

import pytest
from PIL import Image

from tinyldm.data.examples import images_in
from tinyldm.errors import InputError
from tinyldm.scores.files import (
    check_sizes,
    first_few,
    missing_names,
    read_headers,
)


def test_images_by_name(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "about").mkdir()
    files = images_in(tmp_path)
    assert [f.name for f in files] == ["a.jpg", "b.png"]
    assert missing_names(["a.jpg", "c.png"], files) == ["c.png"]
    with pytest.raises(InputError, match="nowhere: no such folder"):
        images_in(tmp_path / "nowhere")


def test_some_names():
    assert first_few("abc") == "a, b, c"
    assert first_few("abcdefg") == "a, b, c, d, e and 2 more"


def test_headers(tmp_path):
    files = [tmp_path / "0.png", tmp_path / "1.png", tmp_path / "2.png"]
    for file, size in zip(files, [(8, 4), (8, 4), (4, 8)], strict=True):
        Image.new("RGBA", size).save(file)
    assert read_headers(files[:2]) == [((8, 4), "RGBA", "PNG")] * 2
    check_sizes(files[:2])
    with pytest.raises(InputError, match=r"2.png: is 4x8, expected 8x4 as 0.png"):
        check_sizes(files)
    files[1].write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1.png: not an image that can be read"):
        check_sizes(files)
