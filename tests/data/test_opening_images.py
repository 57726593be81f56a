"""What is opened as an image: regular files of a sane size; and what more than 8 bits mean."""

import json
import os
import signal
import socket
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.data import images
from tinyldm.data.encode import file_hash
from tinyldm.data.examples import Example, Examples, Layout
from tinyldm.data.images import load_image, read_anew
from tinyldm.errors import InputError
from tinyldm.pages.html import embedded
from tinyldm.scores.files import read_headers
from tinyldm.tasks.segmentation import image_size, load_map


class TooSlowError(BaseException):
    """A reader waits for something that never comes."""


@contextmanager
def at_most(seconds):
    """Interrupt the block if it takes longer."""

    def interrupt(*_):
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def listening(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


def endless(path):
    path.touch()
    os.truncate(path, 2**41)  # no block of it is on the disk


def png(width, height, *, depth=1, colour=0, rows=None, more=b""):
    """A PNG file, black unless its rows of bytes are given; more: chunks before its pixels."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packer = zlib.compressobj(1)
    packed = b""
    for _ in range(height if rows is None else 0):
        packed += packer.compress(bytes(1 + (width * depth + 7) // 8))
    for row in rows or ():
        packed += packer.compress(b"\0" + row)
    chunks = chunk(b"IHDR", header) + b"".join(chunk(*each) for each in more)
    pixels = chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + chunks + pixels + chunk(b"IEND", b"")


ONLY = Layout("x", "x", detect=Path.is_dir, read=lambda *_: [])
READERS = {
    "image": load_image,
    "map": load_map,
    "headers": lambda file: read_headers([file]),
    "page": lambda file: embedded(file, "", 64),
    "hash": file_hash,
    "size": image_size,
    "skip bad": lambda file: Examples((Example(file, ()),), ONLY).checked(),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pipe, "x.png: is a pipe, expected an image file"),
        (device, "x.png: is a device, expected an image file"),
        (listening, "x.png: is a socket, expected an image file"),
        (Path.mkdir, "x.png: is a folder, expected an image file"),
        (endless, "x.png: has 2048.0 GiB, expected an image file of at most 2 GiB"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path, monkeypatch, capsys, reader, make, said
):
    monkeypatch.chdir(tmp_path)
    file = Path("x.png")
    make(file)
    with at_most(5):
        if reader in ("hash", "size"):
            assert READERS[reader](file) is None
        elif reader == "skip bad":
            assert len(READERS[reader](file)) == 0
            assert said in capsys.readouterr().out
        else:
            with pytest.raises(InputError) as caught:
                READERS[reader](file)
            assert str(caught.value) == said


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """An image of 400 million pixels in 60 kilobytes."""
    file = tmp_path_factory.mktemp("huge") / "huge.png"
    file.write_bytes(png(20_000, 20_000))
    assert file.stat().st_size < 1e6
    return file


@pytest.mark.parametrize("reader", ["image", "map", "headers", "page"])
def test_an_image_of_400_million_pixels_is_refused(huge, reader):
    with pytest.raises(InputError, match=r"huge.png: expected an image of at most 178 million pix"):
        READERS[reader](huge)


def test_the_number_of_pixels_is_bounded_whatever_pillow_has_been_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "MOST_PIXELS", 99, raising=False)
    Image.new("RGB", (10, 10)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="x.png: expected an image of at most"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["huge", "pipe"])
@pytest.mark.parametrize(
    "command",
    [
        "submit pictures --prompts test.json --size 64",
        "evaluate pictures --vae tiny",
        "evaluate pictures --reference good --metrics clip-fd --clip tiny",
        "evaluate good --reference pictures --metrics clip-fd --clip tiny",
        "encode --data pictures --vae none --text-encoder tiny --size 8",
        "vae train --data pictures --out vae --steps 1 --size 64",
        "picture neighbours good --train pictures --clip tiny --out x.png",
        "picture previews run --out x.gif",
        "evaluator train --data labelled --out judge --size 8",
    ],
)
def test_every_command_refuses_it_in_one_line(huge, tmp_path, monkeypatch, capsys, command, kind):
    """The second of the pictures is a pipe, or of 400 million pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    for folder in ("pictures", "good", "run/previews", "labelled/images"):
        Path(folder).mkdir(parents=True)
        for k in range(6):
            name = f"step-000000{k}.png"
            bad = k == 1 and folder != "good"
            if bad and kind == "pipe":
                os.mkfifo(f"{folder}/{name}")
            elif bad:
                Path(folder, name).symlink_to(huge)
            else:
                Image.new("RGB", (64, 64), (40 * k, 0, 0)).save(f"{folder}/{name}")
    names = sorted(file.name for file in Path("good").iterdir())
    entries = {name: {"image_name": name, "text_prompt": "x"} for name in names}
    Path("test.json").write_text(json.dumps(entries))
    lines = [json.dumps({"file_name": name, "text": "x"}) for name in names]
    Path("pictures/metadata.jsonl").write_text("\n".join(lines))
    Path("labelled/objects.json").write_text(json.dumps({"red cube": 0, "red sphere": 1}))
    Path("labelled/train.json").write_text(json.dumps({name: ["red cube"] for name in names}))
    with at_most(60):
        assert dispatch(COMMANDS, command.split()) == 2
    said = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert "step-0000001.png: " in said
    assert ("178 million pixels" if kind == "huge" else "is a pipe") in said


def test_no_program_is_run_to_show_a_picture(tmp_path, monkeypatch):
    """PostScript is a program, whatever it is called, and Pillow would start Ghostscript."""

    def run(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match="x.png: not an image that can be read .a PostScript prog"):
        load_image(tmp_path / "x.png")


def test_image_files_are_opened_in_one_place():
    package = Path(images.__file__).parents[1]
    opening = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if "Image.open(" in file.read_text()
    ]
    assert opening == ["data/images.py"]


# ---- more than 8 bits


def grey_levels(file) -> list[int]:
    """The levels of an image of one row, whose three channels are equal."""
    image = load_image(file)
    assert image.mode == "RGB"
    levels = np.array(image)[0]
    assert (levels == levels[:, :1]).all()
    return levels[:, 0].tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.5, 1]), [0, 128, 255]),
        (np.float32([0, 0.25, 1.0001]), [0, 64, 255]),  # as rounding leaves it
        (np.float32([0, 0, 0]), [0, 0, 0]),
        (np.float32([0, 100.4, 200]), [0, 100, 200]),
        (np.float32([0, 32896, 65535]), [0, 128, 255]),
        (np.int32([0, 1, 1]), [0, 255, 255]),
        (np.int32([0, 100, 200]), [0, 100, 200]),
        (np.int32([0, 32896, 65535]), [0, 128, 255]),
        (np.uint16([0, 257, 65535]), [0, 1, 255]),
        (np.uint16([0, 1, 200]), [0, 0, 1]),  # 16 bits are 16 bits, however dark
    ],
)
def test_floats_and_32_bits_are_shown_as_bright_as_they_are(tmp_path, values, expected):
    Image.fromarray(values[None]).save(tmp_path / "x.tiff")
    assert grey_levels(tmp_path / "x.tiff") == expected
    assert read_anew(tmp_path / "x.tiff") == (values.dtype != np.uint16)


@pytest.mark.parametrize(
    "values",
    [
        np.float32([-1, 0, 1]),
        np.float32([0, 1, 3]),
        np.float32([0, 1, 1000]),
        np.float32([0, 1, np.nan]),
        np.float32([0, 1, np.inf]),
        np.int32([-5, 0, 200]),
        np.int32([0, 1, 2**31 - 1]),
        np.int32([0, 500, 1023]),
    ],
)
def test_values_that_leave_it_open_what_is_white_are_refused(tmp_path, values):
    Image.fromarray(values[None]).save(tmp_path / "x.tiff")
    with pytest.raises(InputError, match="x.tiff: not an image .*its values go from .* to 65535"):
        load_image(tmp_path / "x.tiff")


def test_16_bit_grey_with_a_transparent_value_lies_on_white(tmp_path):
    """PNG's tRNS chunk names one of the 65536 values; its neighbours are opaque."""
    row = struct.pack(">4H", 0, 1, 257, 65535)
    transparent = [(b"tRNS", struct.pack(">H", 0))]
    content = png(4, 1, depth=16, rows=[row], more=transparent)
    (tmp_path / "x.png").write_bytes(content)
    assert grey_levels(tmp_path / "x.png") == [255, 0, 1, 255]
    assert read_anew(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(png(4, 1, depth=16, rows=[row]))
    assert grey_levels(tmp_path / "x.png") == [0, 0, 1, 255]
    assert not read_anew(tmp_path / "x.png")


def test_16_bit_grey_with_an_alpha_channel_lies_on_white(tmp_path):
    row = struct.pack(">6H", 0, 0, 0, 65535, 65535, 65535)  # grey, alpha
    (tmp_path / "x.png").write_bytes(png(3, 1, depth=16, colour=4, rows=[row]))
    assert grey_levels(tmp_path / "x.png") == [255, 0, 255]


def test_16_bits_of_other_formats(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 257, 65535))
    assert grey_levels(tmp_path / "x.pgm") == [1, 255]


def test_of_a_large_image_that_is_broken_there_is_one_line_and_no_warning(tmp_path):
    """Pillow warns of 92 million pixels; here, a warning would be what is reported."""
    header = struct.pack(">IIBBBBB", 10_000, 9_200, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    file = tmp_path / "large.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(InputError, match=r"large\.png: not an image that can be read") as raised:
        load_image(file)
    assert "bomb" not in str(raised.value)
