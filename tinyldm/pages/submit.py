"""python -m tinyldm submit: is a folder what an assignment asks for? Then its archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tqdm import tqdm

from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.files import naming, replacing
from tinyldm.scores.files import first_few, image_files, missing_names, read_headers

SIZES = {".json": 256, ".csv": 64}  # what the monster and the animal-object assignment ask for
KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def check_submission(folder: Path, names: list[str], size: int) -> list[Path]:
    """The files to hand in; InputError names what is missing, not asked for, broken, of another mode, kind or size."""
    files = {file.name: file for file in image_files(folder)}
    missing = missing_names(names, files.values())
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(names)} images are missing: {first_few(missing)}"
        )
    more = sorted(files.keys() - set(names))
    if more:
        raise InputError(f"{folder}: {len(more)} images that nothing asks for: {first_few(more)}")
    asked = [files[name] for name in names]
    wrong = []
    for file, (shape, mode, kind) in zip(asked, read_headers(asked)):
        if (shape, mode, kind) != ((size, size), "RGB", KINDS[file.suffix.lower()]):
            wrong.append(f"{file.name} is {shape[0]}x{shape[1]} {mode} {kind}")
    if wrong:
        raise InputError(
            f"{folder}: expected {size}x{size} RGB in the format that the name says, but {first_few(wrong)}"
            " (another size: --size)"
        )
    for file in tqdm(asked, "reading images", unit="image", disable=len(asked) < 500):
        load_image(file)  # decodes every pixel: a file that was cut off has a whole header
    return asked


def write_archive(files: list[Path], out: Path, inside: str = "") -> None:
    """A zip of the files, at its top or inside one folder; equal files give an equal archive."""
    with naming(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(out) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            for file in files:
                archive.writestr(
                    zipfile.ZipInfo(f"{inside}/{file.name}" if inside else file.name),
                    file.read_bytes(),
                )
