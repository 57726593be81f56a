"""Solutions of chapter 12, "The assignments, from the download to the submission"."""

from collections.abc import Sequence
from pathlib import PurePath


def captions_of(name: str, info: dict[str, dict]) -> list[str]:
    """The captions of a training image: each description, then the action.

    The number of the frame is the last part of the name; a portrait has no action.
    """
    key = PurePath(name).stem.rpartition("_")[0]
    entry = info[key]
    action = entry["action_description"]
    return [f"{given} {action}".strip() for given in entry["given_description"]]


def iclevr_accuracy(scores: Sequence[Sequence[float]], wanted: Sequence[Sequence[int]]) -> float:
    """The share of all labels asked for that are among the top k of their picture.

    scores: a number for each label, of each picture; wanted: the labels asked for, of each picture
    """
    found = asked = 0
    for row, labels in zip(scores, wanted, strict=True):
        best = sorted(range(len(row)), key=lambda label: -row[label])[: len(labels)]
        found += len(set(best) & set(labels))
        asked += len(labels)
    return found / asked


def landscape_score(mask: float, aesthetic: float, style: float, fid: float) -> float:
    """The score of the landscapes; the FID counts up to 100."""
    likeness = 0.5 * style + 0.5
    quality = (100 - min(fid, 100)) / 100
    return mask * (0.2 * aesthetic + 0.3 * likeness + 0.5 * quality)


def worth(mask: float, aesthetic: float, style: float, fid: float) -> dict[str, float]:
    """By how much the score grows with each of its parts.

    A FID above 100 costs nothing more, so there its derivative is 0.
    """
    return {
        "mask": landscape_score(1.0, aesthetic, style, fid),
        "aesthetic": 0.2 * mask,
        "style": 0.15 * mask,
        "fid": -0.005 * mask if fid < 100 else 0.0,
    }
