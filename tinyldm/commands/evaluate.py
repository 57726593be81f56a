"""python -m tinyldm evaluate: score generated images, or an autoencoder's reconstructions."""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

from tinyldm.cli import BATCH_SIZE, SIDE, Parser
from tinyldm.errors import InputError, say
from tinyldm.folders import owned_file
from tinyldm.scores.metrics import CLIP, METRICS

EXAMPLES = """examples:
  do the toy monsters show what was asked for?
    python sample.py --prompts data/toy/test.json --out samples/test
    python -m tinyldm evaluate samples/test --prompts data/toy/test.json
  by an assignment's rules
    python -m tinyldm evaluate submission --prompts test.json --reference test --out scores.json
  without torchvision
    python -m tinyldm evaluate submission --reference photos --metrics clip-fd cmmd
  how well does the autoencoder reconstruct these?
    python -m tinyldm evaluate photos --vae tiny --size 64
"""


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm evaluate."""
    parser.end_with(EXAMPLES)
    parser.add_argument("images", metavar="IMAGES", help="the folder of images to score")
    add_given(parser)
    add_how(parser)
    out = parser.add_argument_group("where to")
    out.add_argument(
        "--out", metavar="FILE", help="also write the scores there, as JSON (such as scores.json)"
    )
    out.add_argument("--overwrite", action="store_true", help="replace that file")


def add_given(parser: Parser) -> None:
    """The options that say what the images are compared with."""
    given = parser.add_argument_group("what to compare with")
    given.add_argument(
        "--prompts", metavar="FILE", help="what the images are to show: test.json, .csv or .txt"
    )
    given.add_argument(
        "--reference",
        metavar="DIR",
        help="a folder of real images, of test_mu.npy and test_sigma.npy, or of both",
    )
    given.add_argument(
        "--moments",
        metavar="DIR",
        help="the folder of test_mu.npy and test_sigma.npy, if it is another one",
    )
    given.add_argument(
        "--vae",
        metavar="NAME",
        help="score this autoencoder's reconstructions of the images; with --prompts of toys, its "
        "reconstructions of real drawings, as an upper bound (default there: the one that drew "
        "the images)",
    )
    given.add_argument(
        "--size", type=SIDE, help="with --vae: squash the images to this many pixels first"
    )
    given.add_argument(
        "--evaluator",
        metavar="FOLDER",
        help="a network from python -m tinyldm evaluator train, which reads labels or maps",
    )


def add_how(parser: Parser) -> None:
    """The options that say how images are scored."""
    how = parser.add_argument_group("how")
    names = ", ".join(f"{name!r}" if " " in name else name for name in METRICS)
    how.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"some of {names} (default: all that apply to what is given; for toys, none of "
        "Inception's)",
    )
    how.add_argument(
        "--clip",
        metavar="NAME",
        help=f"tiny, a hub name or a folder (default: {CLIP}; tiny for toys)",
    )
    how.add_argument(
        "--inception",
        metavar="FILE",
        help="weights of torchvision, for fid (default: torch.hub's cache)",
    )
    how.add_argument(
        "--pytorch-fid", metavar="FILE", help="weights of pytorch-fid (default: torch.hub's cache)"
    )
    how.add_argument("--batch-size", type=BATCH_SIZE, default=64, help="images at a time")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options: Namespace) -> None:
    """Score, print a table, write the scores."""
    out = None if options.out is None else Path(options.out)
    if out is not None and out.exists() and not options.overwrite:
        raise InputError(f"{out}: exists already; give another --out, or --overwrite")
    if options.overwrite and out is None:
        raise InputError("--overwrite: there is nothing to overwrite without --out")
    with nullcontext() if out is None else owned_file(out):
        score(options, out)


def score(options: Namespace, out: Path | None) -> None:
    """Score the images; print a table, and write it to the file out."""
    from tinyldm.scores.evaluation import evaluate
    from tinyldm.scores.written import table, write_scores

    scores = evaluate(
        options.images,
        options.prompts,
        vae=options.vae,
        size=options.size,
        device=options.device,
        reference=options.reference,
        moments=options.moments,
        metrics=options.metrics,
        clip=options.clip,
        inception=options.inception,
        pytorch_fid=options.pytorch_fid,
        evaluator=options.evaluator,
        batch_size=options.batch_size,
    )
    for line in table(scores):
        say(line)
    if options.reference and not options.metrics and "clip-i" not in scores:
        say(f"without clip-i, which needs {METRICS['clip-i'].needs}")
    if out is not None:
        write_scores(
            out,
            scores,
            images=options.images,
            prompts=options.prompts,
            reference=options.reference,
        )
