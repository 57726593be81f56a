"""Checks a folder against what an assignment asks for, and writes its archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from tinyldm.data.examples import images_in
from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.files import replacing
from tinyldm.folders import owned_file
from tinyldm.scores.files import first_few, missing_names, read_headers

# suffix -> what such a file has to hold
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def check_submission(folder: Path, names: list[str], size: tuple[int, int]) -> list[Path]:
    """The files to hand in, in the order of their names in the assignment.

    Raises InputError, which names the files, unless the folder holds an image under each name and
    no other, RGB, of the size (h, w), in the format of its suffix, and whole to its last pixel.
    """
    there = {file.name: file for file in images_in(folder)}
    missing = missing_names(names, there.values())
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(names)} images are missing: {first_few(missing)}"
        )
    more = sorted(there.keys() - set(names))
    if more:
        raise InputError(f"{folder}: {len(more)} images that nothing asks for: {first_few(more)}")
    files = [there[name] for name in names]
    height, width = size
    wrong = []
    for file, (found, mode, kind) in zip(files, read_headers(files), strict=True):
        if (found, mode, kind) != ((width, height), "RGB", FORMATS[file.suffix.lower()]):
            wrong.append(f"{file.name} is {found[0]}x{found[1]} {mode} {kind}")
    if wrong:
        raise InputError(
            f"{folder}: expected {width}x{height} RGB in the format that the name says, "
            f"but {first_few(wrong)} (another size: --size)"
        )
    for file in tqdm(files, "reading images", unit="image", disable=len(files) < 500):
        load_image(file)  # decodes every pixel: a file that was cut off has a whole header
    return files


def write_archive(files: list[Path], out: Path, inside: str = "") -> None:
    """Write a zip of the files, at its top or in one folder. Equal files give equal archives."""
    with owned_file(out), replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in files:
            name = f"{inside}/{file.name}" if inside else file.name
            # A ZipInfo of its own has a fixed date, where the file's would differ each time.
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
