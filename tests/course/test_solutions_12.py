"""Chapter 12: captions of the monsters, and the scores of two assignments."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyldm.tasks.base import read_examples
from tinyldm.tasks.judges import top_k_accuracy
from tinyldm.toy.monsters import write_toy

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "12_assignments.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


def test_the_captions_are_those_that_the_library_reads(tmp_path):
    write_toy(tmp_path / "toy", train_monsters=2)
    info = json.loads((tmp_path / "toy" / "train_info.json").read_text(encoding="utf-8"))
    _, examples = read_examples(tmp_path / "toy")
    assert len(examples) > 10
    for example in examples:
        assert chapter.captions_of(example.image.name, info) == list(example.prompts)


def test_the_accuracy_is_that_of_the_library():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(40, 24, generator=generator)
    wanted = [torch.randperm(24, generator=generator)[: 1 + k % 3].tolist() for k in range(40)]
    marks = torch.zeros(40, 24, dtype=torch.bool)
    for row, labels in zip(marks, wanted, strict=True):
        row[labels] = True
    found = chapter.iclevr_accuracy(scores.tolist(), wanted)
    assert found == pytest.approx(top_k_accuracy(scores, marks))


def test_scenes_of_many_objects_weigh_more():
    scores = [[9, 1, 2, 3, 4, 5], [0, 9, 1, 2, 8, 7]]
    assert chapter.iclevr_accuracy(scores, [[0], [1, 2, 3]]) == pytest.approx(2 / 4)


def test_the_score_of_the_landscapes():
    assert chapter.landscape_score(1, 1, 1, 0) == pytest.approx(1)
    assert chapter.landscape_score(0.8, 0.5, 0.6, 60) == pytest.approx(0.8 * 0.54)
    assert chapter.landscape_score(0.5, 0, -1, 250) == 0


@pytest.mark.parametrize("parts", [(0.8, 0.5, 0.6, 60.0), (0.3, 0.2, -0.5, 130.0)])
def test_the_derivatives_are_those_of_differences(parts):
    found = list(chapter.worth(*parts).values())
    for k in range(4):
        more, less = list(parts), list(parts)
        more[k] += 1e-4
        less[k] -= 1e-4
        slope = (chapter.landscape_score(*more) - chapter.landscape_score(*less)) / 2e-4
        assert found[k] == pytest.approx(slope, abs=1e-9)
