"""commands.evaluate."""

from __future__ import annotations

from pathlib import Path

from tinyldm.errors import InputError
from tinyldm.scores.comparison import CLIP
from tinyldm.scores.evaluation import (
    METRICS,
    evaluate,
)
from tinyldm.scores.written import table, write_scores

EXAMPLES = """examples:
  python sample.py --prompts data/toy/test.json --out samples/test
  python -m tinyldm evaluate samples/test --prompts data/toy/test.json     are the toy monsters what was asked for?
  python -m tinyldm evaluate submission --prompts test.json --reference test --out scores.json     an assignment's rules
  python -m tinyldm evaluate submission --reference photos --metrics clip-fd cmmd     no need of torchvision
  python -m tinyldm evaluate photos --vae tiny --size 64                   what does the autoencoder keep of these?
"""


def add_arguments(parser):
    """The options of python -m tinyldm evaluate."""
    parser.epilog = EXAMPLES
    parser.add_argument("images", metavar="IMAGES", help="the folder of images to score")
    given = parser.add_argument_group("what to compare with")
    given.add_argument(
        "--prompts", metavar="FILE", help="what the images were to show: test.json, .csv or .txt"
    )
    given.add_argument(
        "--reference", metavar="DIR", help="real images; or test_mu.npy and test_sigma.npy, or both"
    )
    given.add_argument(
        "--moments", metavar="DIR", help="test_mu.npy and test_sigma.npy, if they lie elsewhere"
    )
    given.add_argument(
        "--vae",
        metavar="NAME",
        help="score this autoencoder's reconstructions of the images; with "
        "--prompts: of real drawings, as a ceiling (default there: the one that drew the images)",
    )
    given.add_argument(
        "--size", type=int, help="with --vae: squash the images to this many pixels first"
    )
    given.add_argument(
        "--evaluator",
        metavar="FOLDER",
        help="a network of python -m tinyldm evaluator train, which "
        "reads labels or maps off the images",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="some of "
        + ", ".join(f"{name!r}" if " " in name else name for name in METRICS)
        + " (default: all that what is given allows; for toy "
        "prompts without those of Inception)",
    )
    how.add_argument(
        "--clip",
        metavar="NAME",
        help=f"tiny, a hub name or a folder (default: {CLIP}; tiny for toys)",
    )
    how.add_argument(
        "--inception",
        metavar="FILE",
        help="torchvision's weights, for fid (default: torch.hub's cache)",
    )
    how.add_argument(
        "--pytorch-fid", metavar="FILE", help="pytorch-fid's weights (default: torch.hub's cache)"
    )
    how.add_argument("--batch-size", type=int, default=64, help="images at a time")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    out = parser.add_argument_group("where to")
    out.add_argument(
        "--out", metavar="FILE", help="also write the scores there, as JSON (such as scores.json)"
    )
    out.add_argument("--overwrite", action="store_true", help="replace that file")


def run(options):
    """Score, print a table, write the scores."""
    out = Path(options.out) if options.out else None
    if out is not None and out.exists() and not options.overwrite:
        raise InputError(f"{out}: exists already; give another --out, or --overwrite")
    if options.overwrite and out is None:
        raise InputError("--overwrite: there is nothing to overwrite without --out")
    given = {
        name: value
        for name, value in vars(options).items()
        if name not in ("command", "out", "overwrite")
    }
    scores = evaluate(**given)
    print(table(scores))
    if options.reference and not options.metrics and "clip-i" not in scores:
        print(f"without clip-i, which needs {METRICS['clip-i'].needs}")
    if out is not None:
        write_scores(
            out,
            scores,
            **{k: v for k, v in given.items() if k in ("images", "prompts", "reference")},
        )
