"""What train.py does around the training: runs are resumed, replaced and kept apart.

Frozen models are stand-ins.
"""

import json
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from stand_ins import SMALL_RUN, AveragingVae, Lengths, without_seal

import train as train_script
from tinyldm.cli import guarded
from tinyldm.data import cache as cache_module
from tinyldm.data.images import save_image
from tinyldm.errors import InputError
from tinyldm.folders import foreign
from tinyldm.nn.unet import UNetConfig
from tinyldm.processes import ALONE
from tinyldm.signals import Stopped, StopRequest
from tinyldm.training import data as training_data
from tinyldm.training import frozen_models
from tinyldm.training.checkpoint import (
    checkpoints,
    drop_training_state,
    find_checkpoint,
    read_config,
)
from tinyldm.training.log import read_log
from tinyldm.training.presets import PRESETS
from tinyldm.training.run import RUN, RunFolder
from tinyldm.training.trainer import Trainer
from tinyldm.weights import read_weights

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=6
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, but for four images of noise in data/.

    What load_frozen was asked for is kept.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "tiny-test", TINY)
    Path("data").mkdir()
    for k in range(4):
        pixels = torch.randint(
            0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(k), dtype=torch.uint8
        )
        Image.fromarray(pixels.numpy()).save(f"data/{k}.png")
    lines = [json.dumps({"file_name": f"{k}.png", "text": "x" * k}) for k in range(4)]
    Path("data/metadata.jsonl").write_text("\n".join(lines))
    found = SimpleNamespace(vae=AveragingVae(), asked=[], places=[])

    def load_frozen(config, device, place=""):
        found.asked.append(config)
        found.places.append(str(place))
        return frozen_models.FrozenModels(found.vae, Lengths())

    monkeypatch.setattr(frozen_models, "load_frozen", load_frozen)
    return found


def train(**given):
    """train.py with a tiny network, settings of a run that is resumed aside."""
    small = {**SMALL_RUN, "preset": "tiny-test"}
    train_script.train({"out": "run", **({} if given.get("resume") else small), **given})


def steps(run="run"):
    return [int(folder.name.removeprefix("step-")) for folder in checkpoints(Path(run))]


def test_what_is_held_out_is_not_trained_on(place, capsys):
    train(hold_out=0.5)
    assert "2 images (0 left out)" in capsys.readouterr().out
    assert read_config(find_checkpoint("run"))["settings"]["hold_out"] == 0.5
    with pytest.raises(InputError, match=r"--hold-out 0.25: the run was started with 0.5"):
        train(resume=True, max_steps=3, hold_out=0.25)
    train(resume=True, max_steps=3)
    assert "2 images (0 left out)" in capsys.readouterr().out
    with pytest.raises(InputError, match="--hold-out nan: expected a share"):
        train(out="other", hold_out=float("nan"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("settings", {"colour": 1}, r"config\.json: unknown settings: colour"),
        ("settings", {"task": ""}, r"config\.json: --task : expected"),
        ("progress", {"plateau": {"total": -1.0}}, r"config\.json: progress\.plateau\.total: exp"),
    ],
)
def test_what_a_config_says_wrongly_is_told_with_its_place(place, key, value, said):
    train()
    file = find_checkpoint("run") / "config.json"
    config = without_seal(file)
    file.write_text(json.dumps({**config, key: {**config[key], **value}}))
    with pytest.raises(InputError, match=said):
        train(resume=True, max_steps=3)
    assert place.places == ["run"]  # by which load_frozen tells what is wrong


def test_data_may_move_but_not_change_before_a_run_is_resumed(place):
    train(max_steps=3, out="whole", lr_schedule="constant")
    train(lr_schedule="constant")
    Path("data").rename("moved")
    with pytest.raises(InputError, match="data: no such folder"):
        train(resume=True, max_steps=3)
    train(resume=True, max_steps=3, data="moved")
    whole, parts = (
        read_weights(find_checkpoint(run) / "training.safetensors") for run in ("whole", "run")
    )
    assert steps() == [2, 3]
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    # so that other weights of the same name are refused
    assert place.asked[-1]["vae_fingerprint"] == "vae"
    text = Path("moved/metadata.jsonl").read_text()
    Path("moved/metadata.jsonl").write_text(text.replace("xx", "xy"))
    with pytest.raises(InputError, match="moved: images or captions are not those"):
        train(resume=True, max_steps=4)
    Path("moved/metadata.jsonl").write_text(text)
    Image.new("RGB", (32, 32)).save("moved/2.png")
    with pytest.raises(InputError, match="moved: images or captions are not those"):
        train(resume=True, max_steps=4)
    assert steps() == [2, 3]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("found", ["at once", "after steps"])
def test_a_run_whose_large_cache_is_damaged_leaves_no_folder_and_the_next_builds_it_anew(
    place, monkeypatch, named, found
):
    out = {"out": "run" if named else None}
    runs = Path("run" if named else "runs/data-1")
    train(out="whole")
    comparing = cache_module.first_damaged

    def late(*arguments):
        in_background = threading.current_thread() is not threading.main_thread()
        while in_background and not read_log(runs / "log.csv"):
            time.sleep(0.01)
        return comparing(*arguments)

    with monkeypatch.context() as patched:
        latents, content = damaged_large_cache(patched)
        if found == "after steps":
            patched.setattr(cache_module, "first_damaged", late)
        with pytest.raises(InputError, match=r"latents\.f16: damaged, .*; start again"):
            train(**out, sample_every=1)
    assert not runs.exists()
    train(**out)  # the same command
    assert latents.read_bytes() == content
    whole, again = (read_weights(find_checkpoint(r) / "model.safetensors") for r in ("whole", runs))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def damaged_large_cache(monkeypatch):
    """The latents, which count as large from now on and are damaged, and what they were."""
    monkeypatch.setattr(cache_module, "LARGE", 100)
    (latents,) = Path("cache/latents").glob("*/latents.f16")
    content = latents.read_bytes()
    latents.write_bytes(bytes(64) + content[64:])
    return latents, content


def test_overwrite_keeps_the_run_that_is_there_until_the_cache_is_known_to_be_whole(
    place, monkeypatch
):
    train()
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    damaged_large_cache(monkeypatch)
    with pytest.raises(InputError, match=r"latents\.f16: damaged"):
        train(overwrite=True)
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before
    train(overwrite=True)
    assert steps() == [2]


def test_a_run_to_resume_keeps_its_checkpoints_where_the_cache_is_damaged(place, monkeypatch):
    train()
    damaged_large_cache(monkeypatch)
    with pytest.raises(InputError, match=r"latents\.f16: damaged"):
        train(resume=True, max_steps=4)
    assert steps() == [2]
    train(resume=True, max_steps=4)
    assert steps() == [2, 4]


def test_an_unknown_preset_is_told_before_the_cache_is_built(place):
    with pytest.raises(
        InputError, match=r"--preset tiny-tets: expected one of toy, .*did you mean tiny-test"
    ):
        train(preset="tiny-tets")
    assert not place.asked
    assert not Path("cache").exists()
    assert not Path("run").exists()


def test_a_perceptual_term_that_would_never_count_is_refused(place):
    with pytest.raises(InputError, match="--perceptual-from 5: expected less than 5"):
        train(max_steps=5, perceptual=1.0, perceptual_from=5)
    assert not Path("run").exists()


def test_a_finished_run_is_left_as_it_is(place):
    train()
    before = find_checkpoint("run").stat().st_mtime_ns
    train(resume=True)
    with pytest.raises(InputError, match="--max-steps 1: run has 2 steps already"):
        train(resume=True, max_steps=1)
    assert steps() == [2]
    assert find_checkpoint("run").stat().st_mtime_ns == before


def test_a_checkpoint_is_no_run_to_resume(place):
    train(save_every=1)
    for folder in (f"run/checkpoints/step-000000{k}" for k in (1, 2)):
        with pytest.raises(InputError, match=f"{folder}: can't be resumed"):
            train(resume=True, max_steps=3, out=folder)
    (find_checkpoint("run") / "training.safetensors").unlink()
    with pytest.raises(InputError, match="step-0000002: can't be resumed"):
        train(resume=True, max_steps=3)


def test_overwrite_takes_away_the_old_run_and_nothing_else(place):
    train(max_steps=5)
    Path("run/thesis.txt").write_text("mine")
    Path("link").symlink_to("run")
    train(out="link", overwrite=True)
    assert steps() == [2]
    assert Path("run/thesis.txt").exists()
    assert Path("link").is_symlink()
    assert [path.name for path in Path("run/previews").iterdir()] == ["step-0000002.png"]
    assert len(Path("run/log.csv").read_text().splitlines()) == 3
    for wrong in ({"out": None}, {"resume": True}):
        with pytest.raises(InputError, match="--overwrite: expected --out"):
            train(overwrite=True, **wrong)


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_second_process_does_not_train_in_the_same_folder(place, how):
    train()
    busy = pytest.raises(InputError, match="run: another process is training there")
    with RunFolder(Path("run"), resume=True).claimed("data", ALONE), busy:
        train(max_steps=3, **{how: True})
    assert steps() == [2]
    train(max_steps=3, **{how: True})


def test_a_run_that_appeared_meanwhile_is_not_written_to(place, monkeypatch):
    open_cache = training_data.open_cache

    def slow(*arguments):
        monkeypatch.setattr(training_data, "open_cache", open_cache)
        train(max_steps=1)
        return open_cache(*arguments)

    monkeypatch.setattr(training_data, "open_cache", slow)
    with pytest.raises(InputError, match="run: exists already"):
        train()
    assert steps() == [1]


def test_a_broken_file_of_prompts_is_told_before_anything_is_encoded(place):
    Path("data/test.json").write_text("{")
    with pytest.raises(InputError, match=r"test.json: not JSON"):
        train()
    assert place.vae.calls == 0
    assert not Path("run").exists()


def test_what_a_killed_process_left_of_a_checkpoint_goes(place):
    train()
    left = Path("run/checkpoints/.step-0000003.writing")
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert steps() == [2]
    assert read_config(find_checkpoint("run"))["step"] == 2
    train(resume=True, max_steps=4)
    assert steps() == [2, 4]
    assert not left.exists()


def test_a_request_to_stop_ends_with_the_command_to_go_on(place, monkeypatch, capsys):
    @contextmanager
    def stopped_at_once():
        request = StopRequest()
        request.handle(signal.SIGTERM, None)
        yield request

    monkeypatch.setattr("tinyldm.signals.stop_on_signal", stopped_at_once)
    with pytest.raises(Stopped) as caught:
        train()
    assert caught.value.status == 143
    assert steps() == [1]
    assert "python train.py --resume --out run" in capsys.readouterr().out


# ---- nothing is lost


def everything():
    """The bytes of all files in the run folder."""
    return {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


@pytest.mark.parametrize("out", ["", " "])
def test_an_empty_name_is_not_no_name(place, monkeypatch, capsys, out):
    """OUT=; python train.py --out "$OUT" --overwrite"""
    train()
    monkeypatch.chdir("run")  # where "" would lead
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for arguments in (["--overwrite"], ["--resume"], []):
        monkeypatch.setattr(sys, "argv", ["train.py", "--out", out, *arguments])
        assert guarded(train_script.main) == 2
        assert "--out: expected a value, got an empty text" in capsys.readouterr().err
    with pytest.raises(InputError, match="--out .*expected the name of a folder"):
        train(out=out, overwrite=True)
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_only_step_and_digits_is_a_checkpoint(place):
    """A copy called step-best is no newer than what is trained after it."""
    train(max_steps=3, save_every=1)
    shutil.copytree("run/checkpoints/step-0000001", "run/checkpoints/step-best")
    assert steps() == [1, 2, 3]
    train(resume=True, max_steps=4)
    assert steps() == [1, 2, 3, 4]
    assert (find_checkpoint("run") / "training.safetensors").is_file()
    train(resume=True, max_steps=5)
    assert read_config(find_checkpoint("run"))["step"] == 5


def test_checkpoints_are_ordered_by_number_and_the_last_two_can_be_resumed(place):
    train(max_steps=3, save_every=1)
    kept = [f.parent.name for f in sorted(Path("run").rglob("training.safetensors"))]
    assert kept == ["step-0000002", "step-0000003"]
    Path("run/checkpoints/step-0000003").rename("run/checkpoints/step-10000000")
    Path("run/checkpoints/step-0000002").rename("run/checkpoints/step-9999999")
    assert steps() == [1, 9999999, 10000000]
    drop_training_state(Path("run"), Path("run/checkpoints/step-9999999"))
    assert (find_checkpoint("run") / "training.safetensors").is_file()  # it is not superseded


FOREIGN = [
    "thesis.pdf",
    "checkpoints/notes.txt",
    "checkpoints/step-best/config.json",
    "checkpoints/step-0000005/notes.txt",
    "previews/mine.png",
    "previews/step-final.png",
    "sweep/notes.txt",
    "sweep/step-0000005_g3_s25_dpm++/mine.png",
    "sweep/held_out/mine.png",
    "tensorboard/notes.txt",
]


def test_overwrite_removes_what_was_written_and_nothing_else(place):
    train(max_steps=5)
    drawn = Path("run/sweep/step-0000005_g3_s25_dpm++")
    (drawn / "about").mkdir(parents=True)
    images = dict.fromkeys(["ours.png", "theirs.png", "../../up.png"], "a")
    (drawn / "about/samples.json").write_text(json.dumps({"images": images}))
    save_image(Image.new("RGB", (8, 8)), drawn / "ours.png", signed=True)
    for name in (drawn / "theirs.png", Path("run/sweep/sweep.json"), Path("run/up.png")):
        name.write_text("{}")
    for name in FOREIGN:
        Path("run", name).parent.mkdir(parents=True, exist_ok=True)
        Path("run", name).write_text("mine")
    train(overwrite=True)
    assert steps() == [2]
    assert all(Path("run", name).read_text() == "mine" for name in FOREIGN)
    assert Path("run/up.png").exists()
    assert not (drawn / "ours.png").exists()
    assert (drawn / "theirs.png").exists()  # a record may name anything
    assert not Path("run/sweep/sweep.json").exists()
    train(max_steps=5, overwrite=True)  # into the folder of step 5 that holds notes
    assert read_config(find_checkpoint("run"))["step"] == 5
    assert all(Path("run", name).read_text() == "mine" for name in FOREIGN)


def test_a_folder_with_a_log_is_no_run(place):
    for name in ("log.csv", "checkpoints/mine.txt", "previews/mine.png"):
        Path("run", name).parent.mkdir(parents=True, exist_ok=True)
        Path("run", name).write_text("mine")
    before = everything()
    with pytest.raises(InputError, match="--out run: is no run folder"):
        train(overwrite=True)
    assert everything() == before


def test_a_run_of_before_there_were_markers_is_known_by_its_checkpoint(place):
    train(max_steps=3)
    Path("run/.tinyldm.json").unlink()
    train(overwrite=True)
    assert steps() == [2]
    Path("run/.tinyldm.json").unlink()
    config = Path("run/checkpoints/step-0000002/config.json")
    config.write_text('{"step": 2}')  # of some other program
    with pytest.raises(InputError, match="is no run folder"):
        train(overwrite=True)


def test_links_in_a_run_are_not_followed(place):
    Path("elsewhere/step-0000002").mkdir(parents=True)
    Path("elsewhere/step-0000002/config.json").write_text("mine")
    train()
    shutil.move("run/checkpoints", "kept")
    for name in ("checkpoints", "previews"):
        shutil.rmtree(f"run/{name}", ignore_errors=True)
        Path("run", name).symlink_to(Path("elsewhere").resolve())
        with pytest.raises(InputError, match=f"run/{name}: is a symbolic link"):
            train(overwrite=True)
        Path("run", name).unlink()
    shutil.move("kept", "run/checkpoints")
    Path("run/checkpoints/step-0000003").symlink_to(Path("elsewhere").resolve())
    with pytest.raises(InputError, match="step-0000003: is a symbolic link"):
        train(resume=True, max_steps=3)
    assert [p.name for p in Path("elsewhere").rglob("*")] == ["step-0000002", "config.json"]
    assert Path("elsewhere/step-0000002/config.json").read_text() == "mine"


def test_a_failure_before_the_first_step_is_in_nobodys_way(place, monkeypatch):
    """Of a new run nothing is left; of one to be overwritten, everything."""
    with pytest.raises(InputError, match="--batch-size 3: expected a multiple of 2"):
        train(batch_size=3, accumulate=2)
    assert not Path("run").exists()
    monkeypatch.chdir("data")
    with pytest.raises(InputError, match="--batch-size 3: expected a multiple of 2"):
        train(data=".", batch_size=3, accumulate=2, out=None)
    assert not Path("runs").exists()
    monkeypatch.chdir("..")

    def out_of_memory(*arguments):
        raise MemoryError

    gradient = Trainer.gradient
    monkeypatch.setattr(Trainer, "gradient", out_of_memory)
    with pytest.raises(MemoryError):
        train()
    monkeypatch.setattr(Trainer, "gradient", gradient)
    assert not Path("run").exists()
    train()
    before = everything()
    with pytest.raises(InputError, match="--batch-size 3: expected a multiple of 2"):
        train(batch_size=3, accumulate=2, overwrite=True)
    assert everything() == before


def test_an_old_config_whose_batch_cannot_be_split_is_named(place):
    train()
    file = checkpoints(Path("run"))[-1] / "config.json"
    config = without_seal(file)
    config["settings"]["accumulate"] = 3
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"{file}: --batch-size 4: expected a multiple of 3"):
        train(resume=True, max_steps=3)


def test_a_training_killed_before_its_first_step_is_in_nobodys_way(place):
    train()
    for name in ("checkpoints", "previews"):
        shutil.rmtree(f"run/{name}")
    for name in ("report.html", "loss_by_noise.csv"):
        Path("run", name).unlink()
    log = Path("run/log.csv")
    log.write_text(log.read_text().splitlines()[0])
    train()
    assert steps() == [2]


DAMAGED = {
    "binary": b"\x00\xff\xfe" * 50,
    "digits": "step,loss,lr,grad_norm,images_per_second\n²,1,1,1,1\n1,1,1,1,1".encode(),
    "endless": b"9" * 5000 + b",1,1,1,1\n1,1,1,1,1\n",
    "quoted": b'step,loss\n"1,1,1,1,1\n' + b"x" * 200_000,
    "words": b"step,loss,lr,grad_norm,images_per_second\n1,one,1,1,1\n1,1,1,1,1\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_log_stops_no_run(place, damage):
    train()
    Path("run/log.csv").write_bytes(DAMAGED[damage])
    train(resume=True, max_steps=3)
    assert steps() == [2, 3]
    rows = read_log(Path("run/log.csv"))
    assert rows[-1][0] == "3"
    assert all(float(cell) >= 0 for row in rows for cell in row)
    assert Path("run/report.html").is_file()


def test_everything_that_a_training_leaves_is_known_as_its_own(place):
    train()
    assert (Path("run") / "loss_by_noise.csv").is_file()
    assert foreign(Path("run"), RUN) is None
