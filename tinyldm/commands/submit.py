"""commands.submit."""

from __future__ import annotations

from pathlib import Path

from tinyldm.errors import InputError
from tinyldm.pages.submit import SIZES, check_submission, write_archive
from tinyldm.tasks.table import read_prompts

EXAMPLES = """examples:
  python -m tinyldm submit submission --prompts test.json --out submission.zip
  python -m tinyldm submit submission --prompts generate.csv --out images.zip --inside generated_images
"""


def add_arguments(parser):
    """The options of python -m tinyldm submit."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "images", metavar="IMAGES", type=Path, help="the folder of images to hand in"
    )
    parser.add_argument(
        "--prompts", metavar="FILE", type=Path, required=True, help="test.json or generate.csv"
    )
    parser.add_argument(
        "--size", type=int, help="pixels a side (default: 256 for a .json, 64 for a .csv)"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the .zip to write (default: none, check alone)"
    )
    parser.add_argument(
        "--inside",
        metavar="NAME",
        default="",
        help="put the images into this folder of the archive (default: at its top)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the .zip")


def run(options):
    """Check, and write the archive."""
    out, size = options.out, options.size or SIZES.get(options.prompts.suffix)
    if size is None or size < 1:
        raise InputError(
            f"--size {options.size}: expected 1 or more; a {options.prompts.suffix} file tells none"
        )
    if out is not None and (out.suffix != ".zip" or (out.exists() and not options.overwrite)):
        raise InputError(
            f"--out {out}: "
            + (
                "expected a name that ends in .zip"
                if out.suffix != ".zip"
                else "exists already; give another one, or --overwrite"
            )
        )
    if (options.inside or options.overwrite) and out is None:
        raise InputError("--inside, --overwrite: belong to --out FILE.zip")
    if set(options.inside) & set("/\\:") or options.inside.startswith("."):
        raise InputError(f"--inside {options.inside}: expected a plain name")
    files = check_submission(
        options.images, [prompt.name for prompt in read_prompts(options.prompts)], size
    )
    if out is not None:
        write_archive(files, out, options.inside)
    print(
        f"{options.images}: {len(files)} images of {size}x{size}, as {options.prompts} asks for"
        + (f", in {out}" if out is not None else "")
    )
