"""python -m tinyldm evaluate: how good a folder of pictures is, by every metric that what was given allows."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor
from tqdm import tqdm

import tinyldm
from tinyldm.data.cache import replacing
from tinyldm.data.formats import Prompt, read_json, read_prompts
from tinyldm.data.transforms import load_image, to_tensor
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.jobs.outputs import RECORD
from tinyldm.toy import attributes

EXAMPLES = """examples:
  python sample.py --prompts data/toy/test.json --out samples/test
  python -m tinyldm evaluate samples/test --prompts data/toy/test.json     are the toy monsters what was asked for?
  python -m tinyldm evaluate photos --vae tiny --size 64                   what does the autoencoder keep of these?
"""
DRAWINGS = 2000  # fresh real drawings that show what the attribute classifier itself can read


@dataclass(frozen=True)
class Job:
    """What an evaluation is given. prompts: those of the file prompts_file, each with its image in the folder."""

    images: Path
    prompts_file: Path | None = None
    prompts: tuple[Prompt, ...] = ()
    vae: str | None = None
    size: int | None = None
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Metric:
    """A way to score: what it needs, in words; whether a job has that; and the scores, always with n and extractor."""

    needs: str
    applies: Callable[[Job], object]
    score: Callable[[Job], dict]


def evaluate(images: str | Path, prompts: str | Path | None = None, vae: str | None = None, size: int | None = None,
             device: str = "auto") -> dict:
    """The scores of a folder of images, metric -> values, by every metric that applies."""
    images = Path(images)
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; expected one with images")
    if size is not None and (vae is None or prompts is not None):
        raise InputError(f"--size {size}: belongs to --vae without --prompts, the test of an autoencoder")
    if size is not None and size < 1:
        raise InputError(f"--size {size}: expected 1 or more")
    wanted = read_prompts(prompts) if prompts is not None else []
    record = read_json(images / RECORD, dict) if (images / RECORD).is_file() else {}  # sample.py's
    check_images(images, wanted, record)
    vae = vae if vae is not None or prompts is None else record.get("vae")
    job = Job(images, Path(prompts) if prompts is not None else None, tuple(wanted), vae, size, pick_device(device))
    chosen = {name: metric for name, metric in METRICS.items() if metric.applies(job)}
    if not chosen:
        raise InputError("nothing to score by: " + "; ".join(f"{name} needs {m.needs}" for name, m in METRICS.items()))
    return {name: metric.score(job) for name, metric in chosen.items()}


def check_images(folder: Path, prompts: list[Prompt], record: dict):
    """Every prompt must have its image, drawn from its text as far as that is known."""
    missing = [prompt.name for prompt in prompts if not (folder / prompt.name).is_file()]
    if missing:
        rest = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        some = ", ".join(missing[:5])
        raise InputError(f"{folder}: {len(missing)} of {len(prompts)} images are missing: {some}{rest}")
    for prompt in prompts:
        drawn = record.get("images", {}).get(prompt.name, prompt.text)
        if drawn != prompt.text:
            raise InputError(f"{folder / prompt.name}: was drawn from {drawn!r}, but the prompt is {prompt.text!r}")


def read_images(folder: Path, names: list[str]) -> Tensor:
    """The images of these names, (n, 3, h, w) in [-1, 1]; all must be of one size."""
    images = []
    for name in tqdm(names, "reading images", unit="image", disable=len(names) < 500):
        images.append(to_tensor(load_image(folder / name)))
        if images[-1].shape != images[0].shape:
            (h, w), (height, width) = images[-1].shape[1:], images[0].shape[1:]
            raise InputError(f"{folder / name}: is {w}x{h}, expected {width}x{height} as {names[0]}")
    return torch.stack(images)


def toy_truth(job: Job) -> dict[str, list[int]]:
    """What the prompts ask for, from attributes.json beside their file: attribute -> n indices into its values."""
    file = job.prompts_file.with_name("attributes.json")
    known = read_json(file, dict)
    unknown = [prompt.name for prompt in job.prompts if Path(prompt.name).stem not in known]
    if unknown:
        raise InputError(f"{file}: says nothing of {unknown[0]}; expected every key of {job.prompts_file.name}")
    rows = [known[Path(prompt.name).stem] for prompt in job.prompts]
    try:
        return {name: [values.index(row[name]) for row in rows] for name, values in attributes.ATTRIBUTES.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not the attributes of toy monsters ({error})") from None


def attribute_scores(job: Job) -> dict:
    """The share of the images whose attributes are read as asked for; beside it, what the reader can do at its best."""
    truth = toy_truth(job)
    images = read_images(job.images, [prompt.name for prompt in job.prompts])
    net = attributes.load_classifier(job.device)
    drawings, labels = attributes.drawings(DRAWINGS, seed=2_000_000)  # the classifier was trained on others
    scores = {"n": len(images), "extractor": f"AttributeNet {attributes.version()}",
              "generated": attributes.accuracy(net.read(images), truth),
              "real drawings": attributes.accuracy(net.read(attributes.from_bytes(drawings)), labels)}
    if job.vae is not None:
        from tinyldm.frozen.vae import AutoencoderKL
        from tinyldm.jobs.autoencoder import reconstruct

        pictures = reconstruct(AutoencoderKL.load(job.vae).to(job.device), drawings.permute(0, 2, 3, 1))
        again = attributes.from_bytes(pictures.permute(0, 3, 1, 2))
        scores[f"their reconstructions by VAE {job.vae}"] = attributes.accuracy(net.read(again), labels)
    return scores


def reconstruction_scores(job: Job) -> dict:
    """PSNR of an autoencoder's reconstructions of the images in the folder."""
    from tinyldm.frozen.vae import AutoencoderKL
    from tinyldm.jobs.autoencoder import reconstruction_psnr

    vae = AutoencoderKL.load(job.vae).to(job.device)
    result = asdict(reconstruction_psnr(vae, job.images, job.size))
    return {"n": result.pop("images"), "extractor": f"VAE {job.vae} {vae.fingerprint[:16]}", "size": job.size,
            "PSNR in dB": result}


METRICS = {
    "toy attributes": Metric("--prompts of the toy set (with attributes.json beside them)",
                             lambda job: job.prompts_file and job.prompts_file.with_name("attributes.json").is_file(),
                             attribute_scores),
    "reconstruction": Metric("--vae without --prompts", lambda job: job.vae and not job.prompts_file,
                             reconstruction_scores),
}  # fmt: skip


def table(scores: dict) -> str:
    """The scores of each metric as text: facts in its first line, then a column for each value, a row for each set."""
    lines = []
    for metric, values in scores.items():
        rows = {name: value for name, value in values.items() if isinstance(value, dict)}
        facts = ", ".join(f"{k} {v}" for k, v in values.items() if not isinstance(v, dict) and v is not None)
        columns = list(next(iter(rows.values())))
        wide = max(map(len, rows))
        lines += [f"{metric} ({facts})", " " * (wide + 2) + "".join(f"{c:>10}" for c in columns)]
        lines += [f"  {name:<{wide}}" + "".join(f"{row[c]:>10.3f}" for c in columns) for name, row in rows.items()]
    return "\n".join(lines)


def add_arguments(parser):
    """The options of python -m tinyldm evaluate."""
    parser.epilog = EXAMPLES
    parser.add_argument("images", metavar="IMAGES", help="the folder of images to score")
    parser.add_argument("--prompts", metavar="FILE", help="what the images were to show: test.json, .csv or .txt")
    parser.add_argument("--vae", metavar="NAME", help="score this autoencoder's reconstructions of the images; with "
                        "--prompts: of real drawings, as a ceiling (default there: the one that drew the images)")
    parser.add_argument("--size", type=int, help="with --vae: squash the images to this many pixels first")
    parser.add_argument("--out", metavar="FILE", help="also write the scores there, as JSON (such as scores.json)")
    parser.add_argument("--overwrite", action="store_true", help="replace that file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options):
    """Score, print a table, write the scores."""
    out = Path(options.out) if options.out else None
    if out is not None and out.exists() and not options.overwrite:
        raise InputError(f"{out}: exists already; give another --out, or --overwrite")
    if options.overwrite and out is None:
        raise InputError("--overwrite: there is nothing to overwrite without --out")
    scores = evaluate(options.images, options.prompts, options.vae, options.size, options.device)
    print(table(scores))
    if out is not None:
        versions = {"tinyldm": tinyldm.__version__, "python": platform.python_version(),
                    **{name: version(name) for name in ("torch", "transformers", "pillow", "numpy")}}
        report = {"images": options.images, "prompts": options.prompts, "scores": scores, "versions": versions}
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
