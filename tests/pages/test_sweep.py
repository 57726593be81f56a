"""A sweep draws each setting once, goes on where it stopped, and finds the best of known scores."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.commands.sweep import chosen_checkpoints
from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.folders import owned
from tinyldm.pages import sweep
from tinyldm.pages.ranking import ranked
from tinyldm.tasks.base import read_examples
from tinyldm.training.run import SWEEP

KNOWN = {
    "clip-t": lambda g, n: g + n / 1000,
    "clip-fd": lambda g, n: (g - 2) ** 2 + 10 / n,
    "toy attributes": lambda g, n: g,
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A run with two checkpoints that held out two of ten gray images; drawing only takes notes.

    Scores are functions of the setting.
    """
    monkeypatch.chdir(tmp_path)
    for step in (10, 20):
        folder = tmp_path / "runs" / "a" / "checkpoints" / f"step-{step:07d}"
        folder.mkdir(parents=True)
        config = {
            "format": 1,
            "step": step,
            "condition": {"task": "text", "name": "tiny"},
            "settings": {"cfg_drop": 0.1, "data": "data", "hold_out": 0.2},
        }
        (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "data").mkdir()
    entries = {str(k): {"image_name": f"{k}.png", "text_prompt": f"prompt {k}"} for k in range(10)}
    for name in ("test", "mine"):
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(entries))
    for k in range(10):
        Image.new("L", (8, 8), 20 * k).save(tmp_path / "data" / f"{k}.webp", lossless=True)
    lines = [json.dumps({"file_name": f"{k}.webp", "text": f"gray {k}"}) for k in range(10)]
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(lines))
    drawn = []

    def draw(checkpoint, prompts, folder, *, how, **more):
        drawn.append(
            (checkpoint.name, how.guidance, how.steps, type(how.solver).__name__, len(prompts))
        )
        folder.mkdir(exist_ok=True)
        (folder / "how").write_text(f"{how.guidance} {how.steps}")

    def evaluate(folder, prompts, *, metrics, shared, drawn=True, **more):
        assert set(json.loads(Path(prompts).read_text()))
        if not drawn:
            shared["network"] = 0
            return {}
        assert "network" in shared  # got before anything was drawn, and kept
        g, n = map(float, (folder / "how").read_text().split())
        return {
            name: {"n": 10, "extractor": "x", "preprocessing": "y", "value": KNOWN[name](g, n)}
            for name in metrics
        }

    monkeypatch.setattr(sweep, "sample_images", draw)
    monkeypatch.setattr(sweep, "evaluate", evaluate)
    return drawn


def run(*arguments):
    return dispatch(COMMANDS, ["sweep", "--run", "runs/a", "--device", "cpu", *arguments])


GRID = [
    "--prompts",
    "data/mine.json",
    "--guidance",
    "1",
    "2",
    "3",
    "--steps",
    "5",
    "10",
    "--metrics",
    "clip-t",
    "clip-fd",
]


def test_every_setting_is_drawn_once(world, capsys):
    assert run(*GRID, "--checkpoints", "all", "--solver", "dpm++", "ddim", "--count", "5") == 0
    assert len(world) == len(set(world)) == 2 * 3 * 2 * 2
    assert {d[-1] for d in world} == {5}
    assert run(*GRID, "--checkpoints", "10", "20", "--solver", "dpm++", "ddim", "--count", "5") == 0
    assert len(world) == 24  # nothing anew
    assert (
        run(*GRID, "--steps", "5", "10", "20", "--count", "5") == 0
    )  # a larger grid: the new column of one solver
    assert world[24:] == [("step-0000020", g, 20, "DPMSolver", 5) for g in (1, 2, 3)]
    result = json.loads(Path("runs/a/sweep/sweep.json").read_text())
    assert len(result["rows"]) == 27
    assert result["readers"]["clip-t"]["extractor"] == "x"
    capsys.readouterr()


def test_it_judges_by_what_the_training_left_out(world, capsys):
    """The captions of every fifth image and these images; what to submit has the test's prompts."""
    assert run("--guidance", "1", "--steps", "5", "5") == 0
    assert "--prompts data/test.json" in capsys.readouterr().out
    assert len(world) == 1
    out, held = Path("runs/a/sweep"), {"00000.png": 0, "00001.png": 5}
    prompts = json.loads((out / "prompts.json").read_text())
    assert {name: prompt["text_prompt"] for name, prompt in prompts.items()} == {
        n: f"gray {k}" for n, k in held.items()
    }
    for name, k in held.items():
        assert load_image(out / "held_out" / name).getpixel((0, 0)) == (20 * k,) * 3
    asked = json.loads((out / "sweep.json").read_text())["asked"]
    assert asked["metrics"] == ["clip-t", "clip-fd"]
    assert asked["reference"] == "runs/a/sweep/held_out"
    _, examples = read_examples("data", hold_out=0.2)
    _, every = read_examples("data")
    held_out = [e for e in every if e.prompts[0] in ("gray 0", "gray 5")]
    assert list(examples.held_out) == held_out


def test_toys_held_out_are_told_by_their_names(world):
    """Whole monsters are held out, and attributes.json says what their images show."""
    for file in Path("data").iterdir():
        file.unlink()
    Path("data/train").mkdir()
    Path("data/attributes.json").write_text("{}")
    info = {}
    for monster in range(10):
        for action in ("main", "hit1"):
            info[f"{monster}_{action}"] = {
                "original_name": f"red round horns {1 + monster % 3}",
                "action_description": "",
                "given_description": [f"monster {monster}"],
                "num_frames": 1,
            }
            Image.new("RGB", (8, 8)).save(f"data/train/{monster}_{action}_3.png")
    Path("data/train_info.json").write_text(json.dumps(info))
    assert run("--guidance", "1") == 0
    toys = json.loads(Path("runs/a/sweep/attributes.json").read_text())
    assert [(toy["eyes"], toy["action"]) for toy in toys.values()] == [
        (1, "hit1"),
        (1, "main"),
        (3, "hit1"),
        (3, "main"),
    ]
    assert {(toy["colour"], toy["shape"], toy["feature"]) for toy in toys.values()} == {
        ("red", "round", "horns")
    }
    assert (
        json.loads(Path("runs/a/sweep/sweep.json").read_text())["asked"]["metrics"][-1]
        == "toy attributes"
    )


def test_a_folder_of_somebody_else_is_left_alone(world, capsys):
    Path("toys/held_out").mkdir(parents=True)
    for name in ("attributes.json", "held_out/00000.png"):
        Path("toys", name).write_text("mine")
    for more in ([], ["--overwrite"]):
        assert run(*GRID, "--out", "toys", *more) == 2
        assert "--out toys: not empty, and holds no sweep" in capsys.readouterr().err
    assert Path("toys/attributes.json").read_text() == "mine"
    assert {path.name for path in Path("toys").iterdir()} == {"attributes.json", "held_out"}
    assert run("--guidance", "1") == 0
    Path("runs/a/sweep/held_out/mine.png").write_text("mine")
    assert run("--guidance", "1", "2", "--overwrite") == 0
    assert Path("runs/a/sweep/held_out/mine.png").read_text() == "mine"


def test_two_sweeps_do_not_draw_into_one_folder(world, capsys):
    with owned(Path("runs/a/sweep"), SWEEP):
        assert run(*GRID) == 2
    assert "runs/a/sweep: another process is drawing there" in capsys.readouterr().err
    assert world == []
    assert run(*GRID) == 0


def test_a_run_that_held_nothing_out_needs_prompts(world, capsys):
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace(', "hold_out": 0.2', ""))
    assert run() == 2
    assert (
        "held nothing out to judge by (train.py --hold-out 0.05); give" in capsys.readouterr().err
    )
    assert not Path("runs/a/sweep").exists()
    assert run(*GRID) == 0


def test_what_scoring_needs_is_there_before_anything_is_drawn(world, monkeypatch, capsys):
    def evaluate(folder, *more, drawn=True, **given):
        assert not drawn
        raise InputError("FID needs torchvision")

    monkeypatch.setattr(sweep, "evaluate", evaluate)
    for folder in ("runs/a/sweep", "new/deep/sweep"):
        assert run(*GRID, "--out", folder) == 2
        assert "FID needs torchvision" in capsys.readouterr().err
        assert not Path(folder).exists()
    assert not Path("new").exists()
    assert world == []


def test_an_interrupted_sweep_goes_on(world, monkeypatch):
    draw = sweep.sample_images

    def interrupted(*arguments, **more):
        if len(world) == 2:
            raise KeyboardInterrupt
        return draw(*arguments, **more)

    monkeypatch.setattr(sweep, "sample_images", interrupted)
    assert run(*GRID) == 130
    assert len(world) == 2
    monkeypatch.setattr(sweep, "sample_images", draw)
    assert run(*GRID) == 0
    assert len(world) == len(set(world)) == 6


def test_a_checkpoint_that_was_trained_anew_is_drawn_anew(world):
    assert run(*GRID) == 0
    assert len(world) == 6
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace('"cfg_drop": 0.1', '"cfg_drop": 0.2'))
    assert run(*GRID) == 0
    assert len(world) == 12
    assert len(json.loads(Path("runs/a/sweep/sweep.json").read_text())["rows"]) == 6


def test_the_best_setting_is_said(world, capsys):
    """By distance alone guidance 2 with the most steps; by CLIP-T alone guidance 3."""
    assert run(*GRID[:-2], "clip-fd") == 0
    out = capsys.readouterr().out
    assert "sample.py --run runs/a/checkpoints/step-0000020 --prompts data/test.json" in out
    assert "--steps 10 --solver dpm++ --guidance 2 " in out
    assert run(*GRID[:-2], "clip-t", "--out", "other") == 0
    assert "--steps 10 --solver dpm++ --guidance 3" in capsys.readouterr().out
    page = Path("other/sweep.html").read_text()
    assert "clip-t against steps" in page
    assert "<svg" in page
    assert "guidance 3" in page
    assert run(*GRID, "--out", "both") == 0
    assert "clip-t against clip-fd, over guidance" in Path("both/sweep.html").read_text()


def test_ranks_are_means_over_the_metrics():
    rows = [
        {
            "checkpoint": "a",
            "guidance": g,
            "steps": n,
            "solver": "s",
            "scores": {"clip-t": t, "clip-fd": d},
        }
        for g, n, t, d in [(1, 5, 0.1, 9.0), (2, 5, 0.3, 1.0), (3, 5, 0.2, 1.0), (4, 1, 0.3, 1.0)]
    ]
    found = ranked(rows, ["clip-t", "clip-fd"])
    assert [(row["guidance"], row["rank"]) for row in found] == [
        (4, 1.0),
        (2, 1.0),
        (3, 1.5),
        (1, 2.5),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--guidance", "nan"], "--guidance nan: expected a number from 0"),
        (["--guidance", "inf"], "--guidance inf: expected"),
        (["--checkpoints", "30"], "--checkpoints 30: runs/a has step-0000010, step-0000020"),
        (["--guidance", "-1"], "--guidance -1: expected a number from 0"),
        (["--steps", "0"], "--steps 0: expected a whole number from 1"),
        (["--count", "0"], "--count 0: expected a whole number from 1"),
        (["--metrics", "beauty"], "--metrics beauty: expected some of fid"),
        (["--evaluator", "judge"], "a sweep with other evaluator"),
        (["--prompts", "nowhere.json"], "nowhere.json: no such file"),
        (["--count", "3"], "a sweep with other prompts"),
        (["--seed", "1"], "a sweep with other seed"),
        (["--metrics", "clip-t"], "a sweep with other metrics"),
    ],
)
def test_bad_input_leaves_the_sweep_alone(world, capsys, arguments, said):
    assert run(*GRID) == 0
    files = {file: file.read_bytes() for file in Path("runs/a/sweep").rglob("*.json")}
    capsys.readouterr()
    assert run(*(GRID if "--metrics" not in arguments else GRID[:-3]), *arguments) == 2
    assert said in capsys.readouterr().err
    assert files == {file: file.read_bytes() for file in Path("runs/a/sweep").rglob("*.json")}
    assert len(world) == 6


def test_labels_need_a_judge(world, capsys):
    """CLIP-T is no metric of lists of labels."""
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace('"task": "text"', '"task": "labels"'))
    assert run("--prompts", "data/mine.json") == 2
    assert "expected --evaluator FOLDER or --reference DIR" in capsys.readouterr().err
    assert run("--prompts", "data/mine.json", "--reference", "real", "--guidance", "1") == 0
    assert json.loads(Path("runs/a/sweep/sweep.json").read_text())["asked"]["metrics"] == [
        "clip-fd"
    ]


def test_guidance_needs_a_null_condition(world, capsys):
    file = Path("runs/a/checkpoints/step-0000020/config.json")
    file.write_text(file.read_text().replace("0.1", "0.0"))
    assert run(*GRID) == 2
    assert "--cfg-drop 0" in capsys.readouterr().err
    assert run("--guidance", "1", "--metrics", "clip-t") == 0


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder; expected a run or a checkpoint"):
        chosen_checkpoints(tmp_path / "nowhere", None)
    with pytest.raises(InputError, match="holds no checkpoint"):
        chosen_checkpoints(tmp_path, ["3"])


# ---- averages and guides as axes


@pytest.fixture
def drawings(world, monkeypatch):
    """What is drawn, as Drawings; checks are noted. The best is an ema length of 0.1, and a guide
    at scale 2."""
    drawn, checked = [], []

    def draw(checkpoint, prompts, folder, *, how, **more):
        drawn.append((folder.name, how))
        folder.mkdir(exist_ok=True)
        worse = abs((how.ema_length or 0.3) - 0.1) + abs((how.guide_scale or 1) - 2)
        (folder / "how").write_text(f"{10 - worse} 1")

    monkeypatch.setattr(sweep, "sample_images", draw)
    monkeypatch.setattr(sweep, "load_averaged", lambda path, ema_length: (path.name, ema_length))
    monkeypatch.setattr(
        sweep, "load_guide", lambda network, how, device: checked.append((network, how.guide))
    )
    return drawn, checked


MORE = ["--prompts", "data/mine.json", "--guidance", "1", "--steps", "5", "--metrics", "clip-t"]
GUIDE = Path("runs/a/checkpoints/step-0000010")


def test_averages_and_guides_are_axes(drawings, capsys):
    drawn, checked = drawings
    axes = ["--ema-length", "saved", "0.05", "0.1", "--guide", "none", "10"]
    for _ in range(2):  # the second time, nothing is drawn anew
        assert run(*MORE, *axes, "--guide-scale", "1.5", "2") == 0
        assert len(drawn) == len({name for name, _ in drawn}) == 3 * (1 + 2)
    assert [how.ema_length for _, how in drawn] == [None] * 3 + [0.05] * 3 + [0.1] * 3
    scales = [(how.guide, how.guide_scale) for _, how in drawn]
    assert scales == [(None, None), (GUIDE, 1.5), (GUIDE, 2.0)] * 3
    # each set of weights was looked at once, before anything was drawn
    assert [network[1] for network, guide in checked] == [None, 0.05, 0.05, 0.1, 0.1]
    out = capsys.readouterr().out
    heads = "checkpoint guidance steps solver ema length guide guide scale clip-t mean rank"
    assert heads in " ".join(out.split())
    advice = f"--guidance 1 --ema-length 0.1 --guide {GUIDE} --guide-scale 2 --out submission"
    assert advice in out
    page = Path("runs/a/sweep/sweep.html").read_text()
    assert "clip-t against ema length" in page
    assert "clip-t against guide scale" in page
    assert f"ema length 0.1, guided by {GUIDE} at 2" in page
    rows = json.loads(Path("runs/a/sweep/sweep.json").read_text())["rows"]
    assert sum("guide" in row for row in rows) == 6
    assert sum("ema_length" in row for row in rows) == 6
    assert run(*MORE, "--guidance", "2") == 0  # the grid may grow in an old direction
    assert len(drawn) == 10


def test_a_sweep_without_them_is_written_as_before(world):
    assert run(*GRID) == 0
    rows = json.loads(Path("runs/a/sweep/sweep.json").read_text())["rows"]
    known = {"checkpoint", "guidance", "steps", "solver", "step", "made", "scores"}
    assert all(row.keys() == known for row in rows)
    folders = {folder.name for folder in Path("runs/a/sweep").glob("step-*")}
    assert "step-0000020_g1_s5_dpm++" in folders
    assert "ema length" not in Path("runs/a/sweep/sweep.html").read_text()


def test_a_guide_that_was_trained_anew_is_drawn_with_anew(drawings):
    drawn, _ = drawings
    assert run(*MORE, "--guide", "10") == 0
    file = GUIDE / "config.json"
    file.write_text(file.read_text().replace('"cfg_drop": 0.1', '"cfg_drop": 0.2'))
    assert run(*MORE, "--guide", "10") == 0
    assert [how.guide_scale for _, how in drawn] == [2.0, 2.0]
    assert len(json.loads(Path("runs/a/sweep/sweep.json").read_text())["rows"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ema-length", "0.5"], "--ema-length 0.5: expected a number from 0.001 to 0.288"),
        (["--ema-length", "best"], "--ema-length best: expected a number"),
        (["--guide", "nowhere"], "nowhere: no such folder; expected a run or a checkpoint"),
        (["--guide-scale", "2"], "--guide-scale: expected --guide with it"),
        (["--guide", "10", "--guide-scale", "-1"], "--guide-scale -1: expected a number from 0"),
    ],
)
def test_impossible_averages_and_guides_are_one_line(drawings, capsys, arguments, said):
    assert run(*MORE, *arguments) == 2
    assert said in capsys.readouterr().err
    assert drawings[0] == []


def test_weights_that_cannot_be_put_together_stop_it_before_anything_is_drawn(world, capsys):
    """The runs of these tests have no weights at all."""
    assert run(*MORE, "--ema-length", "saved", "0.1") == 2
    assert world == []
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("runs/a/sweep").exists()
