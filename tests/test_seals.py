"""Files of JSON that only commands write and read: another value in them never passes unnoticed."""

import json
import random
from pathlib import Path

import pytest
from mutants import json_mutants
from stand_ins import without_seal

from tinyldm.errors import InputError
from tinyldm.files import write_text
from tinyldm.folders import RECORD, recorded
from tinyldm.pages.ranking import read_sweep
from tinyldm.pages.report import scores
from tinyldm.sampling.folder import read_record_file
from tinyldm.scores.evaluator import Evaluator, find_judge
from tinyldm.scores.written import write_scores
from tinyldm.training.checkpoint import read_config, save_checkpoint
from tinyldm.typed import sealed, unsealed

OLDEST = Path(__file__).parent / "assets/format_1/oldest/checkpoints/step-0000005"
NAMES = ("red cube", "blue cube")
RECORDED = {"seed": 0, "steps": 50, "images": {"0.png": "a cat", "1.png": "a dog"}}
ROW = {"checkpoint": "step-0000002", "steps": 2, "solver": "dpm++", "step": 2, "made": "0"}
SWEEP = {
    "asked": {"prompts": {"0.png": "x"}, "metrics": ["clip-t"]},
    "advice": "python sample.py",
    "rows": [{**ROW, "guidance": k, "scores": {"clip-t": k / 8}} for k in (1.0, 2.0)],
    "readers": {"clip-t": {"n": 1, "extractor": "x"}},
}


def write_checkpoint(folder):
    """The oldest of the checkpoints kept, written as it is written today."""
    config = {"progress": {"step": 5}, **read_config(OLDEST), "step": 5}
    save_checkpoint(folder, config, {})
    return folder / "config.json"


def write_evaluator(folder):
    net = find_judge("labels", NAMES).network(2)
    Evaluator("labels", net, NAMES, (8, 8), images=3, held_out={"accuracy": 0.5}).save(folder)
    return folder / "config.json"


def write_record(folder):
    (folder / "about").mkdir()
    write_text(folder / RECORD, json.dumps(sealed(RECORDED)))
    return folder / RECORD


def write_sweep(folder):
    write_text(folder / "sweep.json", json.dumps(sealed(SWEEP)))
    return folder / "sweep.json"


def write_score(folder):
    score = {"n": 3, "extractor": "x", "value": 1.5}
    write_scores(folder / "scores.json", {"clip-fd": score}, images="x")
    return folder / "scores.json"


KINDS = {  # of file: how it is written, and how it is read
    "checkpoint": (write_checkpoint, lambda file: read_config(file.parent)),
    "evaluator": (write_evaluator, lambda file: Evaluator.load(file.parent)),
    "samples": (write_record, read_record_file),
    "sweep": (write_sweep, read_sweep),
    "scores": (write_score, scores),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_value_is_taken(kind, tmp_path):
    """Whatever its type and range. The seal may be missing, as in files of older versions."""
    write, read = KINDS[kind]
    file = write(tmp_path)
    content = json.loads(file.read_text())
    read(file)
    tried = list(json_mutants(content, each=2))
    for (path, what), text in random.Random(0).sample(tried, min(150, len(tried))):
        if json.loads(text) == content or (path, what) == (("checksum",), "missing"):
            continue
        file.write_text(text)
        with pytest.raises(InputError) as raised:
            read(file)
        assert file.name in str(raised.value), (path, what)
    file.write_text(json.dumps(content))
    file.write_text(json.dumps(without_seal(file)))
    read(file)


def test_a_seal_does_not_mind_how_the_file_is_laid_out():
    content = {"a": [1, 2.5, None, True, "é"], "b": {"c": (1, 2), "d": {}}}
    written = sealed(content)
    again = json.loads(json.dumps(dict(reversed(written.items())), indent=3, ensure_ascii=False))
    assert unsealed(again, "x") == {"a": content["a"], "b": {"c": [1, 2], "d": {}}}
    with pytest.raises(InputError, match="^x: damaged: .*take 'checksum' out of it"):
        unsealed(again | {"a": [1, 2.5, None, False, "é"]}, "x")


def test_a_record_that_is_damaged_names_no_pictures_to_remove(tmp_path):
    file = write_record(tmp_path)
    assert recorded(tmp_path) == {"0.png", "1.png"}
    file.write_text(file.read_text().replace("1.png", "mine.png"))
    assert recorded(tmp_path) == set()
    for images in ([1], [["x"]], 3, {"a.png": 1}):  # of an older version, without a seal
        file.write_text(json.dumps({"images": images}))
        assert recorded(tmp_path) == set()


@pytest.mark.parametrize("progress", [{"step": 4}, {}, {"step": 6, "skipped": 1}])
def test_a_checkpoint_that_says_two_steps_is_refused(tmp_path, progress):
    config = {**read_config(OLDEST), "step": 5, "progress": progress}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: step is 5 and progress\.step is "):
        read_config(tmp_path)


def test_a_checkpoint_without_a_seal_is_of_no_consistency_run(tmp_path):
    """Versions that knew of consistency wrote seals, so it tells damage, not a tuned run."""
    config = {**read_config(OLDEST), "settings": {"consistency": "runs/toy-1"}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(sealed(config)))
    assert read_config(tmp_path)["settings"]["consistency"] == "runs/toy-1"
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: settings\.consistency: expected null"):
        read_config(tmp_path)
