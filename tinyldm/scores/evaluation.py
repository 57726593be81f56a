"""python -m tinyldm evaluate: how good a folder of pictures is, by every metric that what was given allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tinyldm.data.examples import Prompt
from tinyldm.data.images import load_image
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.files import read_json
from tinyldm.sampling.folder import RECORD
from tinyldm.scores import attributes
from tinyldm.scores.comparison import CLIP, Comparison
from tinyldm.scores.distances import MOMENTS
from tinyldm.scores.evaluator import Evaluator, judged, read_pixels, style_scores
from tinyldm.scores.files import check_prompted, check_sizes, image_files
from tinyldm.tasks.landscape import parts
from tinyldm.tasks.table import read_prompts

DRAWINGS = 2000  # fresh real drawings that show what the attribute classifier itself can read


@dataclass(frozen=True)
class Job(Comparison):
    """What an evaluation is given: a comparison; the file of prompts and what it says, one for each of files; a VAE."""

    images: Path = Path()
    prompts_file: Path | None = None
    prompts: tuple[Prompt, ...] = ()
    vae: str | None = None
    size: int | None = None
    evaluator: Evaluator | None = None

    def with_references(self) -> bool:
        """Whether every prompt names a map and the image whose style it is to have."""
        return bool(self.prompts) and all(
            file and file.is_file() for p in self.prompts for file in parts(p.text)
        )

    @property
    def of_toys(self) -> bool:
        """Whether the prompts are the toy set's, which attributes.json explains."""
        return (
            self.prompts_file is not None
            and self.prompts_file.with_name("attributes.json").is_file()
        )


@dataclass(frozen=True)
class Metric:
    """A way to score: what it needs, in words; whether a job has that; the scores; which value is the best.

    score returns n, extractor, preprocessing, the headline number as "value", and rows (name -> column -> number).
    load: gets what the images are scored with, before any of them is read
    """

    needs: str
    applies: Callable[[Job], object]
    score: Callable[[Job], dict]
    load: Callable[[Job], object] = lambda job: None
    best: str = "highest"


def evaluate(
    images: str | Path,
    prompts: str | Path | None = None,
    vae: str | None = None,
    size: int | None = None,
    device: str = "auto",
    *,
    reference: str | Path | None = None,
    moments: str | Path | None = None,
    metrics: list[str] | None = None,
    clip: str | None = None,
    inception: str | None = None,
    pytorch_fid: str | None = None,
    evaluator: str | Path | None = None,
    batch_size: int = 64,
    shared: dict | None = None,
    drawn: bool = True,
) -> dict:
    """The scores of a folder of images, metric -> values, by the metrics named, or by every one that applies.

    Not drawn: no scores yet, but an InputError now for all that could be missing once the images are there.
    """
    images, reference = Path(images), Path(reference) if reference is not None else None
    for name, value in {"size": size, "batch-size": batch_size}.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected 1 or more")
    files, references = image_files(images), image_files(reference) if reference is not None else ()
    wanted = read_prompts(prompts) if prompts is not None else []
    record = read_json(images / RECORD, dict) if (images / RECORD).is_file() else {}  # sample.py's
    if wanted:
        if drawn:
            check_prompted(images, wanted, record)
        files = tuple(images / prompt.name for prompt in wanted)
    if not files and (reference or not vae):
        raise InputError(f"{images}: no images there, expected some to score")
    beside = (
        moments is None
        and reference is not None
        and any((reference / name).exists() for name in MOMENTS)
    )
    if reference is not None and not references and not beside:
        raise InputError(f"{reference}: no images there, nor {' and '.join(MOMENTS)}")
    job = Job(
        files,
        tuple(prompt.text for prompt in wanted),
        reference,
        references,
        reference if beside else Path(moments) if moments else None,
        clip or CLIP,
        {"torchvision": inception, "pytorch-fid": pytorch_fid},
        batch_size,
        pick_device(device),
        {} if shared is None else shared,
        {},
        images,
        Path(prompts) if prompts is not None else None,
        tuple(wanted),
        record.get("vae") if vae is None and prompts is not None else vae,
        size,
        Evaluator.load(evaluator, pick_device(device)) if evaluator is not None else None,
    )
    job = replace(job, clip="tiny") if clip is None and job.of_toys else job
    given = {
        "size": (size, "reconstruction"),
        "evaluator": (evaluator, "evaluator"),
        "moments": (moments, "fid"),
        "inception": (inception, "fid"),
        "pytorch-fid": (pytorch_fid, "pytorch-fid"),
    }
    chosen = choose(job, metrics, given)
    if drawn and chosen != ["reconstruction"]:  # which says itself what it can't read
        check_sizes(files)
    for name in chosen:
        METRICS[name].load(job)
    return {name: METRICS[name].score(job) for name in chosen if drawn}


def choose(job: Job, asked: list[str] | None, given: dict[str, tuple]) -> list[str]:
    """The metrics asked for, which must apply, or else all that do; Inception, which knows photos, scores no toys.

    given: option -> (its value, the metric that alone looks at it); one that would be ignored is refused
    """
    for name in asked or ():
        if name not in METRICS:
            raise InputError(f"--metrics {name}: expected some of {', '.join(METRICS)}")
        if not METRICS[name].applies(job):
            raise InputError(f"--metrics {name}: needs {METRICS[name].needs}")
    applying = [name for name, metric in METRICS.items() if metric.applies(job)]
    texts = not (job.evaluator or job.with_references())  # others than captions are nothing to CLIP
    chosen = asked or [
        name
        for name in applying
        if not (job.of_toys and "fid" in name) and (texts or name != "clip-t")
    ]
    for option, (value, metric) in given.items():
        if value is not None and metric not in chosen:
            raise InputError(
                f"--{option} {value}: belongs to {metric} alone, which needs {METRICS[metric].needs}"
            )
    if not chosen:
        raise InputError(
            "nothing to score by: "
            + "; ".join(f"{name} needs {m.needs}" for name, m in METRICS.items())
        )
    if not asked or "clip-i" in asked:
        job.check_pairs()
    return chosen


def load_toys(job: Job):
    """What attributes.json says the monsters were to be, attribute -> n indices into its values; and their classifier."""
    file = job.prompts_file.with_name("attributes.json")
    known = read_json(file, dict)
    try:
        rows = [known[Path(prompt.name).stem] for prompt in job.prompts]
        truth = {
            name: [values.index(row[name]) for row in rows]
            for name, values in attributes.ATTRIBUTES.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: doesn't say what each toy of {job.prompts_file.name} is to be ({error!r})"
        ) from None
    return truth, job.once("attributes", lambda: attributes.load_classifier(job.device))


def attribute_scores(job: Job) -> dict:
    """The share of the images whose attributes are read as asked for; beside it, what the reader can do at its best."""
    truth, net = load_toys(job)
    images = attributes.from_bytes(read_pixels(job.files, load_image(job.files[0]).size[::-1]))
    found = attributes.accuracy(net.read(images), truth)
    return {
        "n": len(images),
        "extractor": f"AttributeNet {attributes.version()}",
        "preprocessing": f"{attributes.SIZE}x{attributes.SIZE} (tensor, bilinear, antialiased)",
        "value": sum(found.values()) / len(found),
        "generated": found,
        **job.once(("ceilings", job.vae), lambda: attribute_ceilings(net, job)),
    }


def attribute_ceilings(net, job: Job) -> dict:
    """What the classifier reads of real drawings, and of what a VAE makes of them."""
    drawings, labels = attributes.drawings(
        DRAWINGS, seed=2_000_000
    )  # the classifier was trained on others
    scores = {
        "real drawings": attributes.accuracy(net.read(attributes.from_bytes(drawings)), labels)
    }
    if job.vae is not None:
        from tinyldm.autoencoder.kl import AutoencoderKL
        from tinyldm.scores.reconstruction import reconstruct

        pictures = reconstruct(
            AutoencoderKL.load(job.vae).to(job.device), drawings.permute(0, 2, 3, 1)
        )
        again = attributes.from_bytes(pictures.permute(0, 3, 1, 2))
        scores[f"their reconstructions by VAE {job.vae}"] = attributes.accuracy(
            net.read(again), labels
        )
    return scores


def reconstruction_scores(job: Job) -> dict:
    """PSNR and SSIM of an autoencoder's reconstructions of the images in the folder."""
    from tinyldm.autoencoder.kl import AutoencoderKL
    from tinyldm.scores.reconstruction import folder_scores

    vae = AutoencoderKL.load(job.vae).to(job.device)
    kept = folder_scores(vae, job.images, job.size, batch_size=job.batch_size)
    return {
        "n": kept.images,
        "extractor": f"VAE {job.vae} {vae.fingerprint[:16]}",
        "preprocessing": f"squashed to {job.size}x{job.size} (Pillow, bicubic)"
        if job.size
        else "none",
        "value": kept.mean,
        "reconstructions": {"PSNR": kept.mean, "pooled": kept.pooled, "SSIM": kept.ssim},
    }


METRICS = {  # where a way to score is added
    "fid": Metric(
        "--reference FOLDER of images, or --moments",
        lambda job: job.references or job.moments,
        lambda job: job.frechet_distance("torchvision"),
        lambda job: job.real("torchvision"),
        "lowest",
    ),
    "pytorch-fid": Metric(
        "--reference FOLDER of images",
        lambda job: job.references,
        lambda job: job.frechet_distance("pytorch-fid"),
        lambda job: job.real("pytorch-fid"),
        "lowest",
    ),
    "clip-i": Metric(
        "--reference FOLDER with an image of each name",
        lambda job: job.files and not job.unpaired,
        Job.clip_i,
        Job.clip_scorer,
    ),
    "clip-t": Metric("--prompts FILE", lambda job: job.prompts, Job.clip_t, Job.clip_scorer),
    "clip-fd": Metric(
        "--reference FOLDER of images",
        lambda job: job.references,
        lambda job: job.frechet_distance("clip"),
        lambda job: job.real("clip"),
        "lowest",
    ),
    "cmmd": Metric(
        "--reference FOLDER of images",
        lambda job: job.references,
        Job.cmmd,
        Job.clip_scorer,
        "lowest",
    ),
    "toy attributes": Metric(
        "--prompts of the toy set (with attributes.json beside them)",
        lambda job: job.of_toys,
        attribute_scores,
        load_toys,
    ),
    "evaluator": Metric(
        "--evaluator FOLDER (of python -m tinyldm evaluator train) and --prompts FILE",
        lambda job: job.evaluator and job.prompts,
        lambda job: judged(job.evaluator, job.files, [prompt.text for prompt in job.prompts]),
    ),
    "style": Metric(
        "--prompts label_to_img.json, of landscapes with references",
        Job.with_references,
        lambda job: style_scores(job.files, [prompt.text for prompt in job.prompts]),
    ),
    "reconstruction": Metric(
        "--vae without --prompts and --reference",
        lambda job: job.vae and not job.prompts_file and not job.reference,
        reconstruction_scores,
    ),
}
