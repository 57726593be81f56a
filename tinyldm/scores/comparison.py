"""Images against real ones and against what was asked for.

FID, CLIP-I, CLIP-T, and the Fréchet distance and CMMD on CLIP's features.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.errors import InputError
from tinyldm.frozen.image import ClipScorer
from tinyldm.scores.distances import Statistics, cmmd, frechet, read_moments, statistics
from tinyldm.scores.features import Extractor, clip_extractor
from tinyldm.scores.files import first_few, missing_names
from tinyldm.scores.inception import load_inception
from tinyldm.scores.metrics import CLIP


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and by which networks.

    files:      the images to score
    texts:      what each of them was to show
    reference:  the folder of real images, and `references` the images in it
    moments:    the folder with test_mu.npy and test_sigma.npy
    clip:       the CLIP, as --clip names it
    weights:    kind of Inception -> its file of weights, None for torch.hub's cache
    shared:     networks and what they computed of the references; comparisons with the same
                networks and references may share it
    own:        what the networks computed of the images to score

    Each score is a dict with n, extractor, preprocessing, value, and the reference if there is one.
    """

    files: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()
    reference: Path | None = None
    references: tuple[Path, ...] = ()
    moments: Path | None = None
    clip: str = CLIP
    weights: Mapping[str, str | Path | None] = field(default_factory=dict)
    batch_size: int = 64
    device: torch.device | str = "cpu"
    shared: dict[Hashable, Any] = field(default_factory=dict)
    own: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def unpaired(self) -> list[str]:
        """The names of images that have no reference of the same name."""
        return missing_names([file.name for file in self.files], self.references)

    def check_pairs(self) -> None:
        """InputError where some images have a reference of their name and others have none."""
        missing = self.unpaired
        if self.references and 0 < len(missing) < len(self.files):
            raise InputError(
                f"{self.reference}: {len(missing)} of {len(self.files)} images have no reference "
                f"of their name: {first_few(missing)}; complete it, "
                "or leave clip-i out with --metrics"
            )

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """make(), or what it returned before for the same key, here or where `shared` is shared."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def clip_scorer(self) -> ClipScorer:
        """The CLIP with both of its towers."""
        return self.once("scorer", lambda: ClipScorer.load(self.clip, self.device))

    def extractor(self, kind: str) -> Extractor:
        """A network that turns images into features: "clip", or one of the kinds of Inception."""
        if kind == "clip":
            return self.once(kind, lambda: clip_extractor(self.clip_scorer(), self.clip))
        return self.once(kind, lambda: load_inception(kind, self.weights.get(kind), self.device))

    def features(self, kind: str, files: tuple[Path, ...]) -> Tensor:
        """The features (n, d) of image files: the references, or images to score."""
        extractor = self.extractor(kind)
        kept = self.shared if files == self.references else self.own
        key = (kind, files)
        if key not in kept:
            kept[key] = extractor.features(files, self.batch_size)
        return kept[key]

    def score(self, kind: str, value: float, **facts: Any) -> dict[str, Any]:
        """A value with what it was made by."""
        extractor = self.extractor(kind)
        return {
            "n": len(self.files),
            "extractor": extractor.name,
            "preprocessing": extractor.preprocessing,
            **facts,
            "value": value,
        }

    def reference_statistics(self, kind: str) -> Statistics:
        """Mean and covariance of the reference's features; for "torchvision", the given moments.

        InputError: too few images for a covariance, or moments of another network.
        """
        if kind == "torchvision" and self.moments is not None:
            self._check_counts(len(self.files))
            return self._given_moments(self.moments, kind)
        self._check_counts(len(self.files), len(self.references))
        return self.once(
            ("statistics", kind), lambda: statistics(self.features(kind, self.references))
        )

    def _check_counts(self, *counts: int) -> None:
        if min(counts) < 2:
            raise InputError(
                f"a Frechet distance of {' and '.join(map(str, counts))} images: expected 2 or "
                "more, which have a covariance; leave it out with --metrics"
            )

    def _given_moments(self, folder: Path, kind: str) -> Statistics:
        given = self.once("moments", lambda: read_moments(folder))
        width = self.extractor(kind).width
        if len(given.mean) != width:
            raise InputError(f"{folder}: moments of {len(given.mean)} features, expected {width}")
        return given

    def frechet_distance(self, kind: str) -> dict[str, Any]:
        """Fréchet distance between the generated and the reference images."""
        real = self.reference_statistics(kind)
        made = statistics(self.features(kind, self.files))
        if real.n:
            facts = {"reference": str(self.reference), "reference n": real.n}
        else:
            facts = {"reference": str(self.moments)}
        return self.score(kind, frechet(made, real), **facts)

    def cmmd(self) -> dict[str, Any]:
        """CMMD between the generated and the reference images, on CLIP's features."""
        made = self.features("clip", self.files)
        real = self.features("clip", self.references)
        facts = {"reference": str(self.reference), "reference n": len(self.references)}
        return self.score("clip", cmmd(made, real), **facts)

    def clip_i(self) -> dict[str, Any]:
        """The mean cosine of each image and the reference of its name."""
        row = {file.name: k for k, file in enumerate(self.references)}
        real = self.features("clip", self.references)
        paired = real[[row[file.name] for file in self.files]]
        return self.score("clip", self._mean_cosine(paired), reference=str(self.reference))

    def clip_t(self) -> dict[str, Any]:
        """The mean cosine of each image and its text, not multiplied by 100."""
        scorer = self.clip_scorer()
        encoded = []
        starts = range(0, len(self.texts), self.batch_size)
        for start in tqdm(starts, "CLIP texts", unit="batch", delay=2):
            texts = list(self.texts[start : start + self.batch_size])
            encoded.append(scorer.texts(texts).cpu())
        return self.score("clip", self._mean_cosine(torch.cat(encoded)))

    def _mean_cosine(self, others: Tensor) -> float:
        """Of the image features of the files and other vectors, row by row, in float64."""
        made = self.features("clip", self.files).double()
        return F.cosine_similarity(made, others.double()).mean().item()
