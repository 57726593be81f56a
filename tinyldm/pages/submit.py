"""python -m tinyldm submit: is a folder what an assignment asks for? Then its archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tqdm import tqdm

from tinyldm.data.cache import naming, replacing
from tinyldm.data.transforms import load_image
from tinyldm.errors import InputError
from tinyldm.scores.files import image_files, missing_names, read_headers, some
from tinyldm.tasks.table import read_prompts

SIZES = {".json": 256, ".csv": 64}  # what the monster and the animal-object assignment ask for
KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
EXAMPLES = """examples:
  python -m tinyldm submit submission --prompts test.json --out submission.zip
  python -m tinyldm submit submission --prompts generate.csv --out images.zip --inside generated_images
"""


def check_submission(folder: Path, names: list[str], size: int) -> list[Path]:
    """The files to hand in; InputError names what is missing, not asked for, broken, of another mode, kind or size."""
    files = {file.name: file for file in image_files(folder)}
    missing = missing_names(names, files.values())
    if missing:
        raise InputError(f"{folder}: {len(missing)} of {len(names)} images are missing: {some(missing)}")
    more = sorted(files.keys() - set(names))
    if more:
        raise InputError(f"{folder}: {len(more)} images that nothing asks for: {some(more)}")
    asked = [files[name] for name in names]
    wrong = []
    for file, (shape, mode, kind) in zip(asked, read_headers(asked)):
        if (shape, mode, kind) != ((size, size), "RGB", KINDS[file.suffix.lower()]):
            wrong.append(f"{file.name} is {shape[0]}x{shape[1]} {mode} {kind}")
    if wrong:
        raise InputError(f"{folder}: expected {size}x{size} RGB in the format that the name says, but {some(wrong)}"
                         " (another size: --size)")  # fmt: skip
    for file in tqdm(asked, "reading images", unit="image", disable=len(asked) < 500):
        load_image(file)  # decodes every pixel: a file that was cut off has a whole header
    return asked


def write_archive(files: list[Path], out: Path, inside: str = "") -> None:
    """A zip of the files, at its top or inside one folder; equal files give an equal archive."""
    with naming(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.writestr(zipfile.ZipInfo(f"{inside}/{file.name}" if inside else file.name), file.read_bytes())


def add_arguments(parser):
    """The options of python -m tinyldm submit."""
    parser.epilog = EXAMPLES
    parser.add_argument("images", metavar="IMAGES", type=Path, help="the folder of images to hand in")
    parser.add_argument("--prompts", metavar="FILE", type=Path, required=True, help="test.json or generate.csv")
    parser.add_argument("--size", type=int, help="pixels a side (default: 256 for a .json, 64 for a .csv)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the .zip to write (default: none, check alone)")
    parser.add_argument("--inside", metavar="NAME", default="", help="put the images into this folder of the archive "
                        "(default: at its top)")
    parser.add_argument("--overwrite", action="store_true", help="replace the .zip")


def run(options):
    """Check, and write the archive."""
    out, size = options.out, options.size or SIZES.get(options.prompts.suffix)
    if size is None or size < 1:
        raise InputError(f"--size {options.size}: expected 1 or more; a {options.prompts.suffix} file tells none")
    if out is not None and (out.suffix != ".zip" or out.exists() and not options.overwrite):
        raise InputError(f"--out {out}: " + ("expected a name that ends in .zip" if out.suffix != ".zip" else
                                             "exists already; give another one, or --overwrite"))
    if (options.inside or options.overwrite) and out is None:
        raise InputError("--inside, --overwrite: belong to --out FILE.zip")
    if set(options.inside) & set("/\\:") or options.inside.startswith("."):
        raise InputError(f"--inside {options.inside}: expected a plain name")
    files = check_submission(options.images, [prompt.name for prompt in read_prompts(options.prompts)], size)
    if out is not None:
        write_archive(files, out, options.inside)
    print(f"{options.images}: {len(files)} images of {size}x{size}, as {options.prompts} asks for"
          + (f", in {out}" if out is not None else ""))
