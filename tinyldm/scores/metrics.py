"""METRICS, the ways to score a folder of images that `python -m tinyldm evaluate` chooses from.

A metric says what it needs, whether a job has that, and how it is computed. To add one, derive a
class from Metric and give it a name in METRICS. This module imports no torch until something is
scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.errors import InputError
from tinyldm.typed import as_json, read_json

if TYPE_CHECKING:
    from tinyldm.scores.attributes import AttributeNet
    from tinyldm.scores.evaluation import Job

CLIP = "openai/clip-vit-base-patch32"  # what the assignments score by
DRAWINGS = 2000  # fresh real drawings that show what the attribute classifier itself can read
TOYS = "attributes.json"  # beside the prompts of the toy set: what each monster is to be

Scores = dict[str, Any]


class Metric(ABC):
    """A way to score.

    needs: the options that it needs, in words; best: which value is, the "highest" or the "lowest"
    """

    needs: str
    best: str = "highest"

    @abstractmethod
    def applies(self, job: Job) -> bool:
        """Whether a job has what the metric needs."""

    def load(self, job: Job) -> None:
        """Get what the images are scored with, before any of them is read.

        InputError: something is missing or does not fit.
        """
        return None

    @abstractmethod
    def score(self, job: Job) -> Scores:
        """n, extractor, preprocessing and the headline number as "value".

        Further keys are facts, or rows of the table: name -> {column: number}.
        """


class FrechetDistance(Metric):
    """Fréchet distance between the features of the generated and of the reference images."""

    needs = "--reference FOLDER of images"
    best = "lowest"

    def __init__(self, kind: str):
        self.kind = kind  # of extractor

    def applies(self, job: Job) -> bool:
        return bool(job.references)

    def load(self, job: Job) -> None:
        job.reference_statistics(self.kind)

    def score(self, job: Job) -> Scores:
        return job.frechet_distance(self.kind)


class AssignmentFid(FrechetDistance):
    """The assignments' FID, whose reference may also be moments that were handed out."""

    needs = "--reference FOLDER of images, or --moments"

    def applies(self, job: Job) -> bool:
        return bool(job.references) or job.moments is not None


class Cmmd(Metric):
    """CMMD between the generated and the reference images."""

    needs = "--reference FOLDER of images"
    best = "lowest"

    def applies(self, job: Job) -> bool:
        return bool(job.references)

    def load(self, job: Job) -> None:
        job.clip_scorer()

    def score(self, job: Job) -> Scores:
        return job.cmmd()


class ClipI(Metric):
    """The mean cosine of each image and the reference of its name."""

    needs = "--reference FOLDER with an image of each name"

    def applies(self, job: Job) -> bool:
        return bool(job.files) and not job.unpaired

    def load(self, job: Job) -> None:
        job.clip_scorer()

    def score(self, job: Job) -> Scores:
        return job.clip_i()


class ClipT(Metric):
    """The mean cosine of each image and its prompt."""

    needs = "--prompts FILE"

    def applies(self, job: Job) -> bool:
        return bool(job.requests)

    def load(self, job: Job) -> None:
        job.clip_scorer()

    def score(self, job: Job) -> Scores:
        return job.clip_t()


class ToyAttributes(Metric):
    """The share of attributes of toy monsters that a classifier reads as they were asked for."""

    needs = f"--prompts of the toy set (with {TOYS} beside them)"

    def applies(self, job: Job) -> bool:
        return job.of_toys

    def load(self, job: Job) -> None:
        self.wanted(job)
        self.classifier(job)

    def score(self, job: Job) -> Scores:
        from tinyldm.data.images import from_bytes, load_image
        from tinyldm.scores import attributes
        from tinyldm.scores.files import read_pixels

        wanted = self.wanted(job)
        net = self.classifier(job)
        width, height = load_image(job.files[0]).size
        images = from_bytes(read_pixels(job.files, (height, width)))
        found = attributes.accuracy(net.read(images), wanted)
        ceilings = job.once(("ceilings", job.vae), lambda: self.ceilings(net, job))
        return {
            "n": len(images),
            "extractor": f"AttributeNet {attributes.version()}",
            "preprocessing": f"{attributes.SIZE}x{attributes.SIZE} (tensor, bilinear, antialiased)",
            "value": sum(found.values()) / len(found),
            "generated": found,
            **ceilings,
        }

    def wanted(self, job: Job) -> dict[str, list[int]]:
        """What the monsters are to be: attribute -> for each request the index of its value."""
        from tinyldm.toy.monsters import ATTRIBUTES

        assert job.prompts_file is not None
        file = job.prompts_file.with_name(TOYS)
        known = read_json(file, dict[str, dict[str, str | int]])
        wanted: dict[str, list[int]] = {}
        for request in job.requests:
            toy = Path(request.name).stem
            if toy not in known:
                raise InputError(
                    f"{file}: says nothing of {toy!r}, which {job.prompts_file.name} names"
                )
            for name, values in ATTRIBUTES.items():
                value = known[toy].get(name)
                if value not in values:
                    expected = f"expected one of {', '.join(map(str, values))}"
                    raise InputError(f"{file}: {toy}.{name}: {expected}, found {as_json(value)}")
                wanted.setdefault(name, []).append(values.index(value))
        return wanted

    def classifier(self, job: Job) -> AttributeNet:
        """The network that reads the attributes, trained at its first use."""
        from tinyldm.scores import attributes

        return job.once("attributes", lambda: attributes.load_classifier(job.device))

    def ceilings(self, net: AttributeNet, job: Job) -> dict[str, dict[str, float]]:
        """What the classifier reads off real drawings, and off what a VAE makes of them."""
        from tinyldm.data.images import from_bytes
        from tinyldm.scores import attributes

        drawings, truth = attributes.drawings(DRAWINGS, seed=2_000_000)  # not those of its training
        found = net.read(from_bytes(drawings))
        scores = {"real drawings": attributes.accuracy(found, truth)}
        if job.vae is not None:
            from tinyldm.autoencoder.kl import AutoencoderKL
            from tinyldm.scores.reconstruction import reconstruct

            vae = AutoencoderKL.load(job.vae).to(job.device)
            pictures = reconstruct(vae, drawings.permute(0, 2, 3, 1))
            found = net.read(from_bytes(pictures.permute(0, 3, 1, 2)))
            row = f"their reconstructions by VAE {job.vae}"
            scores[row] = attributes.accuracy(found, truth)
        return scores


class ReadByEvaluator(Metric):
    """What a network that was trained on real images reads off these: labels or maps."""

    needs = "--evaluator FOLDER (which the command `evaluator train` makes) and --prompts FILE"

    def applies(self, job: Job) -> bool:
        return job.evaluator is not None and bool(job.requests)

    def score(self, job: Job) -> Scores:
        assert job.evaluator is not None
        return job.evaluator.judged(job.files, job.prompts)


class Style(Metric):
    """How alike in colour landscapes are to their references, and to those of other landscapes."""

    needs = "--prompts label_to_img.json, of landscapes with references"

    def applies(self, job: Job) -> bool:
        return job.with_references

    def score(self, job: Job) -> Scores:
        from tinyldm.data.images import load_image, to_bytes
        from tinyldm.scores.similarity import style_likeness

        drawn = [to_bytes(load_image(file)) for file in job.files]
        references = [to_bytes(load_image(file)) for file in job.style_files]
        of_the_next = references[1:] + references[:1]
        found = {}
        for name, others in {"own": references, "another's": of_the_next}.items():
            likeness = [style_likeness(a, b) for a, b in zip(drawn, others, strict=True)]
            found[name] = sum(likeness) / len(likeness)
        return {
            "n": len(drawn),
            "extractor": "colour histograms, 8x8x8, correlation",
            "preprocessing": "none",
            "value": found["own"],
            "reference": found,
        }


class Reconstruction(Metric):
    """PSNR and SSIM of an autoencoder's reconstructions of the images in the folder."""

    needs = "--vae without --prompts and --reference"

    def applies(self, job: Job) -> bool:
        compared = job.prompts_file is not None or job.reference is not None
        return job.vae is not None and not compared

    def score(self, job: Job) -> Scores:
        from tinyldm.autoencoder.kl import AutoencoderKL
        from tinyldm.scores.reconstruction import folder_scores

        assert job.vae is not None
        vae = AutoencoderKL.load(job.vae).to(job.device)
        kept = folder_scores(vae, job.images, job.size, batch_size=job.batch_size)
        squashed = f"squashed to {job.size}x{job.size} (Pillow, bicubic)"
        return {
            "n": kept.images,
            "extractor": f"VAE {job.vae} {vae.fingerprint[:16]}",
            "preprocessing": squashed if job.size else "none",
            "value": kept.mean,
            "reconstructions": {"PSNR": kept.mean, "pooled": kept.pooled, "SSIM": kept.ssim},
        }


METRICS: dict[str, Metric] = {
    "fid": AssignmentFid("torchvision"),
    "pytorch-fid": FrechetDistance("pytorch-fid"),
    "clip-i": ClipI(),
    "clip-t": ClipT(),
    "clip-fd": FrechetDistance("clip"),
    "cmmd": Cmmd(),
    "toy attributes": ToyAttributes(),
    "evaluator": ReadByEvaluator(),
    "style": Style(),
    "reconstruction": Reconstruction(),
}
