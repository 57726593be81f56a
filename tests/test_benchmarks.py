"""The scripts in docs/benchmarks: in small, both sides compute the same and the results have their
form. How long anything takes is asserted nowhere."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from tinyldm.folders import RECORD
from tinyldm.nn.config import UNetConfig
from tinyldm.training.presets import PRESETS

pytest.importorskip("diffusers")

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "benchmarks"
SMALL = UNetConfig(
    channels=(16, 32), attention=("none", "cross"), blocks=1, heads=2, groups=8, scale_shift=True
)
SCRIPTS = {"network", "loop", "drawing", "error_by_calls", "starts", "memory", "steps", "counts"}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a script of docs/benchmarks with --quick; returns what it keeps."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)
    kept = dict(PRESETS)

    def run(name, *arguments):
        module = importlib.import_module(name)
        module.main([*map(str, arguments), "--quick", "--out", str(tmp_path / "result.json")])
        result = json.loads((tmp_path / "result.json").read_text())
        assert result["table"] in capsys.readouterr().out
        assert result["machine"]["load"]
        assert result["machine after"]["processor"]
        return result

    yield run
    PRESETS.clear()
    PRESETS.update(kept)
    for name in {*SCRIPTS, "rounds", "page", "training_step"}:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    """A run of two steps on a small toy set, and a file of prompts."""
    import train
    from tinyldm.toy.monsters import write_toy

    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TINYLDM_CACHE", str(folder / "cache"))
        patch.setitem(PRESETS, "toy", SMALL)
        write_toy("toy", train_monsters=1)
        options = {"data": "toy", "vae": "tiny", "text_encoder": "tiny", "size": (32, 32)}
        options |= {"batch_size": 2, "max_steps": 2, "warmup": 1, "device": "cpu", "out": "run"}
        options |= {"precision": "float32", "cfg_drop": 0.1, "lr": 1e-2}
        train.train(options)
    return folder / "run", folder / "toy" / "test.json"


@pytest.mark.slow
def test_the_networks_compute_the_same(run):
    rows = run("network")["rows"]
    by_precision = {row["precision"]: row for row in rows}
    assert by_precision["float32"]["difference"] < 1e-3
    assert by_precision["bfloat16"]["difference"] < 0.2
    for row in rows:
        assert row["flop"]["ours"] == row["flop"]["diffusers"] > 0
        assert row["ratio"].keys() == row["cpu ratio"].keys() == {"diffusers"}


@pytest.mark.slow
def test_the_loops_encode_the_same(run):
    result = run("loop")
    # the cache rounds to float16, whose last bit is half a thousandth of a number
    assert result["difference"]["latents"] < 1e-3
    assert result["difference"]["tokens"] < 2e-2
    flop = result["flop an image"]
    assert flop["usual"] > flop["ours"]
    assert flop["usual"] - flop["ours"] == pytest.approx(result["flop of encoding"], rel=0.05)


@pytest.mark.filterwarnings("ignore:__array__")  # of diffusers' schedulers
@pytest.mark.slow
def test_the_pictures_are_the_same(run, toy_run):
    folder, prompts = toy_run
    result = run("drawing", folder, "--prompts", prompts)
    assert result["difference"]["largest"] <= 3
    assert result["seconds"].keys() == result["flop"].keys()
    assert not list(Path().rglob(RECORD))  # pictures lie in a temporary folder


@pytest.mark.filterwarnings("ignore:__array__", "ignore:.*deprecated")
@pytest.mark.slow
def test_the_solvers_go_to_the_same_end(run, toy_run):
    folder, prompts = toy_run
    rows = run("error_by_calls", folder, "--prompts", prompts)["rows"]
    errors = {(name, calls): error for _, name, calls, error in rows}
    assert {row[0] for row in rows} == {"ours", "diffusers"}
    for calls in (4, 8):
        theirs = errors["DPMSolverMultistep 2, trailing", calls]
        assert errors["dpm++ 2, trailing", calls] == pytest.approx(theirs, rel=0.1, abs=1e-4)


@pytest.mark.slow
def test_starts_memory_and_steps_have_their_form(run):
    starts = run("starts")["rows"]
    assert all(row["seconds"] > 0 and row["processor"] > 0 for row in starts.values())
    few, many = run("memory")["rows"]
    assert many["cache"] > few["cache"] > 0
    assert all(row["training"] > 0 and row["building the cache"] > 0 for row in (few, many))
    one, two = run("steps")["rows"]
    assert two["flop"] == pytest.approx(2 * one["flop"], rel=1e-3)


@pytest.mark.slow
def test_counts_of_the_meta_device(run):
    """Both networks multiply the same; twice the batch is twice the work."""
    result = run("counts")
    (pair,) = result["pairs"].values()
    for kind in ("parameters", "forward flop", "flop"):
        assert pair["ours"][kind] == pair["diffusers"][kind]
    one, eight = result["steps"]
    assert eight["flop"] == pytest.approx(8 * one["flop"], rel=0.01)
    assert one["flop"] == pytest.approx(3 * one["forward flop"], rel=0.1)


def test_the_most_bytes_at_once_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    peak_bytes = importlib.import_module("rounds").peak_bytes

    weight = torch.zeros(10**6)

    def job():
        weight.view(10, -1).t()  # was there before
        for _ in range(5):
            made = torch.zeros(1000)  # 4,000 bytes, the last still there while the next is made
            view = made[10:]
            del view
        torch.zeros(500)

    assert peak_bytes(job) == 8000
    sys.modules.pop("rounds")


def test_the_page_has_a_place_for_every_result(monkeypatch):
    """And nothing in a place was written by hand."""
    monkeypatch.syspath_prepend(FOLDER)
    page = importlib.import_module("page")
    sys.modules.pop("page")
    text = page.PAGE.read_text()
    places = set(re.findall(r"<!-- (\w+) -->", text))
    assert places == SCRIPTS | {"network_compiled", "network_bfloat16"}  # of network.py, too
    assert {path.stem for path in (FOLDER / "results").glob("*.json")} <= places
    known = {p.stem: json.loads(p.read_text()) for p in (FOLDER / "results").glob("*.json")}
    assert page.filled(text, known) == text
    busy = {"processor": "p", "threads": 1, "gpu": None, "torch": "2", "load": [9.0], "cores": 2}
    told = page.filled(text, {"loop": {"table": "T\n", "machine": busy, "machine after": busy}})
    assert "busy with other work" in told
    assert told.count("Not measured yet.") == len(places) - 1
