"""Images against real ones and against what was asked for: FID, CLIP-I, CLIP-T, Frechet distance and CMMD on CLIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tinyldm.errors import InputError
from tinyldm.scores.distances import Statistics, cmmd, frechet, read_moments, statistics
from tinyldm.scores.features import Extractor, clip_extractor
from tinyldm.scores.files import missing_names, some
from tinyldm.scores.inception import load_inception

CLIP = "openai/clip-vit-base-patch32"  # what the assignments score by


@dataclass(frozen=True)
class Comparison:
    """What is compared, by which networks; each score is a dict with n, extractor, preprocessing and value.

    files: the images to score; texts: what each was to show; references: the files of the folder `reference`
    moments: the folder with test_mu.npy and test_sigma.npy; weights: files for the kinds of Inception
    shared: networks and what they read off the references; comparisons with the same of both may share them
    own: what they read off the images to score
    """

    files: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()
    reference: Path | None = None
    references: tuple[Path, ...] = ()
    moments: Path | None = None
    clip: str = CLIP
    weights: dict[str, str | None] = field(default_factory=dict)
    batch_size: int = 64
    device: torch.device = torch.device("cpu")
    shared: dict = field(default_factory=dict)
    own: dict = field(default_factory=dict)

    @property
    def unpaired(self) -> list[str]:
        """The names of images under which there is no reference."""
        return missing_names([file.name for file in self.files], self.references)

    def check_pairs(self):
        """InputError where some images have a reference of their name and some have none: they are not one set."""
        missing = self.unpaired
        if self.references and 0 < len(missing) < len(self.files):
            raise InputError(
                f"{self.reference}: {len(missing)} of {len(self.files)} images have no reference of their "
                f"name: {some(missing)}; complete it, or leave clip-i out with --metrics"
            )

    def once(self, key, make: Callable, kept: dict | None = None):
        """make(), or what it returned before for the same key; kept: where, if not in shared."""
        kept = self.shared if kept is None else kept
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def clip_scorer(self):
        """The CLIP with both towers."""
        from tinyldm.frozen.image import ClipScorer

        return self.once("scorer", lambda: ClipScorer.load(self.clip, self.device))

    def extractor(self, kind: str) -> Extractor:
        """The network of that kind: "clip", or one of Inception's."""
        if kind == "clip":
            return self.once(kind, lambda: clip_extractor(self.clip_scorer(), self.clip))
        return self.once(kind, lambda: load_inception(kind, self.weights.get(kind), self.device))

    def features(self, kind: str, files: tuple[Path, ...]) -> Tensor:
        """The features (n, d) of image files."""
        extractor, kept = (
            self.extractor(kind),
            self.shared if files == self.references else self.own,
        )
        return self.once((kind, files), lambda: extractor.features(files, self.batch_size), kept)

    def score(self, kind: str, value: float, **facts) -> dict:
        """A value with what made it."""
        by = self.extractor(kind)
        return {
            "n": len(self.files),
            "extractor": by.name,
            "preprocessing": by.preprocessing,
            **facts,
            "value": value,
        }

    def real(self, kind: str) -> Statistics:
        """Of the references, or for the assignments' FID the moments given; InputError: too few images, other moments."""
        given = kind == "torchvision" and self.moments is not None
        counts = [len(self.files)] if given else [len(self.files), len(self.references)]
        if min(counts) < 2:
            raise InputError(
                f"a Frechet distance of {' and '.join(map(str, counts))} images: expected 2 or more, which "
                "have a covariance; leave it out with --metrics"
            )
        if not given:
            return self.once(
                ("statistics", kind), lambda: statistics(self.features(kind, self.references))
            )
        real = self.once("moments", lambda: read_moments(self.moments))
        if len(real.mean) != self.extractor(kind).width:
            raise InputError(
                f"{self.moments}: moments of {len(real.mean)} features, expected {self.extractor(kind).width}"
            )
        return real

    def frechet_distance(self, kind: str) -> dict:
        """Of the images from what is real."""
        real = self.real(kind)
        given = (
            {"reference": str(self.reference), "reference n": real.n}
            if real.n
            else {"reference": str(self.moments)}
        )
        return self.score(kind, frechet(statistics(self.features(kind, self.files)), real), **given)

    def cmmd(self) -> dict:
        """CMMD from the references."""
        value = cmmd(self.features("clip", self.files), self.features("clip", self.references))
        return self.score(
            "clip", value, reference=str(self.reference), **{"reference n": len(self.references)}
        )

    def clip_i(self) -> dict:
        """The mean cosine of each image and the reference of its name."""
        place = {file.name: k for k, file in enumerate(self.references)}
        real = self.features("clip", self.references)[[place[file.name] for file in self.files]]
        return self.score("clip", self._cosine(real), reference=str(self.reference))

    def clip_t(self) -> dict:
        """The mean cosine of each image and its text, not multiplied by 100."""
        encode, b = self.clip_scorer().texts, self.batch_size
        starts = tqdm(range(0, len(self.texts), b), "CLIP texts", unit="batch", delay=2)
        texts = [encode(list(self.texts[k : k + b])).cpu() for k in starts]
        return self.score("clip", self._cosine(torch.cat(texts)))

    def _cosine(self, others: Tensor) -> float:
        return (
            F.cosine_similarity(self.features("clip", self.files).double(), others.double())
            .mean()
            .item()
        )
