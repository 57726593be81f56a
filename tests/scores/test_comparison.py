"""Folders compared by the tiny CLIP: known values for equal sets, and what must not matter."""

import pytest
import torch

from tinyldm.errors import InputError
from tinyldm.frozen.image import ClipScorer
from tinyldm.scores.comparison import Comparison
from tinyldm.scores.distances import Statistics, cmmd, frechet, statistics
from tinyldm.toy import monsters as toy

TEXTS = ("a red ghost", "a blue blob", "a green star", "a gray cloud", "a pink bear", "a cyan cat")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders with six drawings each under the same names, and the drawings."""
    places, drawn = [tmp_path_factory.mktemp(name) for name in ("made", "real")], []
    for k, place in enumerate(places):
        drawn.append([toy.draw(monster, "stand") for monster in toy.monsters()[k][:6]])
        for number, image in enumerate(drawn[-1]):
            image.save(place / f"{number}.png")
    return [tuple(sorted(place.iterdir())) for place in places], drawn


def compare(files, references=(), **given):
    return Comparison(
        files=files,
        reference=references[0].parent if references else None,
        references=references,
        clip="tiny",
        **given,
    )


def test_a_set_against_itself(folders):
    (made, _), _ = folders
    job = compare(made, made)
    assert job.clip_i()["value"] == pytest.approx(1)
    assert job.unpaired == []
    assert job.frechet_distance("clip")["value"] == pytest.approx(0, abs=1e-6)
    assert job.cmmd()["value"] == pytest.approx(0, abs=1e-6)


def test_scores_are_those_of_clips_vectors(folders):
    (made, real), (images, references) = folders
    scorer, job = ClipScorer.load("tiny"), compare(made, real, texts=TEXTS)
    a, b, t = scorer.images(images), scorer.images(references), scorer.texts(list(TEXTS))
    assert job.clip_i()["value"] == pytest.approx((a * b).sum(1).mean().item(), abs=1e-5)
    assert job.clip_t()["value"] == pytest.approx((a * t).sum(1).mean().item(), abs=1e-5)
    assert job.cmmd()["value"] == pytest.approx(cmmd(a, b), abs=1e-4)
    raw = [
        scorer.embed(torch.stack([scorer.prepare(image) for image in some]))
        for some in (images, references)
    ]
    expected = frechet(*(statistics(features) for features in raw))
    assert job.frechet_distance("clip")["value"] == pytest.approx(expected, rel=1e-3)


def test_pairs_go_by_name(folders):
    (made, real), _ = folders
    expected = compare(made, real).clip_i()["value"]
    assert compare(made, real[::-1]).clip_i()["value"] == pytest.approx(expected, abs=1e-6)
    assert compare(made[:4], real[2:]).unpaired == ["0.png", "1.png"]


def test_batches_do_not_matter(folders):
    (made, real), _ = folders
    values = [
        [
            score["value"]
            for score in (job.clip_i(), job.clip_t(), job.cmmd(), job.frechet_distance("clip"))
        ]
        for job in (compare(made, real, texts=TEXTS, batch_size=b) for b in (1, 4, 64))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert values[1] == pytest.approx(values[2], rel=1e-4)


def test_networks_and_references_are_read_once(folders, monkeypatch):
    (made, real), _ = folders
    shared, loads, load = {}, [], ClipScorer.load
    monkeypatch.setattr(ClipScorer, "load", lambda *a: loads.append(a) or load(*a))
    for files in (made, made[:3]):
        compare(files, real, shared=shared).frechet_distance("clip")
    assert len(loads) == 1
    assert ("clip", real) in shared


def test_scores_name_what_made_them(folders):
    (made, real), _ = folders
    score = compare(made[:4], real).frechet_distance("clip")
    assert score["n"] == 4
    assert score["reference n"] == 6
    assert score["reference"] == str(real[0].parent)
    assert score["extractor"].startswith("CLIP tiny ")
    assert "bicubic" in score["preprocessing"]


def test_moments_of_another_width_are_refused(folders, monkeypatch):
    (made, _), _ = folders
    job = compare(made, moments=made[0].parent)
    few = Statistics(torch.zeros(3), torch.eye(3), 0)
    monkeypatch.setattr("tinyldm.scores.comparison.read_moments", lambda folder: few)
    monkeypatch.setattr(
        "tinyldm.scores.comparison.load_inception", lambda *a: job.extractor("clip")
    )
    with pytest.raises(InputError, match="moments of 3 features, expected"):
        job.frechet_distance("torchvision")
