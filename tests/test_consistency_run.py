"""train.py --consistency: from the weights of a trained run to one that draws in a few steps.

Frozen models are stand-ins.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from stand_ins import SMALL_RUN, AveragingVae, Lengths, without_seal

import train as train_script
from tinyldm.data.examples import Request
from tinyldm.data.images import to_bytes
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.errors import InputError
from tinyldm.methods.consistency import ConsistencyLoss, ConsistencySolver
from tinyldm.nn.unet import UNetConfig
from tinyldm.sampling import job
from tinyldm.sampling.settings import Drawing, SampleOptions
from tinyldm.tasks.base import find_task
from tinyldm.training import frozen_models, teacher
from tinyldm.training.checkpoint import checkpoints, find_checkpoint, load_checkpoint, read_config
from tinyldm.training.presets import PRESETS
from tinyldm.weights import read_weights

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=6
)


def stand_in(config, device, place=""):
    return frozen_models.FrozenModels(AveragingVae(), Lengths())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with four images of noise in data/, and a run of 25 steps on them."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TINYLDM_CACHE", str(folder / "cache"))
        patch.setitem(PRESETS, "tiny-test", TINY)
        patch.setattr(frozen_models, "load_frozen", stand_in)
        Path("data").mkdir()
        for k in range(4):
            pixels = torch.randint(
                0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(k), dtype=torch.uint8
            )
            Image.fromarray(pixels.numpy()).save(f"data/{k}.png")
        lines = [json.dumps({"file_name": f"{k}.png", "text": "x" * k}) for k in range(4)]
        Path("data/metadata.jsonl").write_text("\n".join(lines))
        train_script.train({**SMALL_RUN, "out": "run", "preset": "tiny-test", "max_steps": 25})
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "tiny-test", TINY)
    monkeypatch.setattr(frozen_models, "load_frozen", stand_in)


def tune(**given):
    """train.py --consistency run --out tuned."""
    first = {} if given.get("resume") else {"consistency": "run"}
    train_script.train({"out": "tuned", "device": "cpu", **first, **given})


def weights(run, name="model"):
    return read_weights(find_checkpoint(run) / f"{name}.safetensors")


def test_what_is_not_given_is_the_runs(place):
    tune(batch_size=2)
    before = read_config(find_checkpoint("run"))
    config = read_config(find_checkpoint("tuned"))
    settings = config["settings"]
    different = {key for key in settings if settings[key] != before["settings"][key]}
    assert different == {
        *("consistency", "max_steps", "batch_size", "lr", "muon_lr", "lr_schedule", "warmup"),
        *("cfg_drop", "style_drop"),
    } - {key for key in ("warmup",) if not before["settings"][key]}
    assert settings["consistency"] == "run/checkpoints/step-0000025"
    assert settings["max_steps"] == 6  # half of the passes through the network: 6 x 6 < 25 x 3
    assert (settings["batch_size"], settings["cfg_drop"]) == (2, 0)
    for same in ("schedule", "prediction", "network", "data", "latent_shape", "vae_fingerprint"):
        assert config[same] == before[same]
    assert all(
        map(torch.equal, weights("run", "latents").values(), weights("tuned", "latents").values())
    )


def test_the_training_starts_from_the_averaged_weights(place, monkeypatch):
    begun = {}

    def kept(self, denoiser, noised, condition, progress):
        begun.setdefault("weights", {k: v.clone() for k, v in denoiser.state_dict().items()})
        begun.setdefault("progress", []).append(progress)
        return loss(self, denoiser, noised, condition, progress)

    loss = ConsistencyLoss.__call__
    monkeypatch.setattr(ConsistencyLoss, "__call__", kept)
    tune(max_steps=4)
    expected = weights("run")
    assert begun["weights"].keys() == expected.keys()
    assert all(torch.equal(begun["weights"][name], expected[name]) for name in expected)
    assert begun["progress"] == [0, 0.25, 0.5, 0.75]
    assert not all(torch.equal(weights("tuned")[name], expected[name]) for name in expected)


@pytest.mark.parametrize("source", ["teacher", "data"])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(place, source):
    tune(max_steps=4, save_every=2, consistency_from=source)
    whole = weights("tuned", "training")
    shutil.rmtree(find_checkpoint("tuned"))
    tune(resume=True)
    assert [folder.name for folder in checkpoints(Path("tuned"))] == [
        "step-0000002",
        "step-0000004",
    ]
    again = weights("tuned", "training")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_is_not_resumed_with_another_teacher(place):
    tune(max_steps=4, save_every=2)
    Path("run").rename("moved")
    with pytest.raises(InputError, match="run/checkpoints/step-0000025: no such folder"):
        tune(resume=True, max_steps=5)
    tune(resume=True, max_steps=5, consistency="moved/checkpoints/step-0000025")
    train_script.train({**SMALL_RUN, "out": "run", "preset": "tiny-test", "seed": 1})
    with pytest.raises(InputError, match="run: its weights are not those that the run was started"):
        tune(resume=True, max_steps=6, consistency="run")


def test_with_guidance_1_the_teacher_is_called_once_and_with_others_twice(place):
    rows = {}
    for scale in (1.0, 3.0):
        tune(out=f"tuned-{scale:g}", max_steps=1, teacher_guidance=scale)
        frozen = teacher.Tuning(load_checkpoint("run"))
        seen = rows.setdefault(scale, [])

        def count(network, inputs, seen=seen):
            seen.append(len(inputs[0]))

        frozen.teacher.network.register_forward_pre_hook(count)
        settings = teacher.settings_of(read_config(find_checkpoint(f"tuned-{scale:g}")))
        guided = frozen.objective(settings, torch.device("cpu")).teacher
        condition = frozen.teacher.null.expand(2)
        guided(torch.zeros(2, 3, 8, 8), torch.zeros(2), condition)
    assert rows == {1.0: [2], 3.0: [4]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prediction": "flow"}, "--prediction flow: expected v, as --consistency run was trained"),
        ({"schedule": "flow"}, "--schedule flow: expected cosine, as --consistency run"),
        ({"shift": 0.25}, "--shift 0.25: expected 1.0, as --consistency run"),
        ({"size": (16, 16)}, "--size 16x16: expected 32x32, as --consistency run"),
        ({"vae": "none"}, "--vae none: expected .*, as --consistency run"),
        ({"preset": "small"}, "--preset small: expected tiny-test, as --consistency run"),
        ({"flip": False}, "was trained on other images or captions, or on other copies"),
        ({"data": "other"}, "was trained on other images or captions"),
        ({"cfg_drop": 0.1}, "--cfg-drop 0.1: expected 0 with --consistency"),
        ({"perceptual": 0.1}, "--perceptual 0.1: expected 0 with --consistency"),
        ({"snr_gamma": 5.0}, "--snr-gamma 5.0: expected 0 with --consistency"),
        ({"loss_weights": "even"}, "--loss-weights even: expected plain with --consistency"),
        ({"consistency": "nowhere"}, "nowhere: no such folder"),
        ({"consistency": "data"}, "data: holds no checkpoint"),
        ({"style_drop": 0.2}, "--style-drop 0.2: belongs to --task landscape"),
        (
            {"teacher_guidance": 2.0, "consistency_from": "data"},
            "--teacher-guidance 2.0: would be ignored, expected .*--consistency-from teacher",
        ),
        ({"consistency_from": "noise"}, "--consistency-from noise: expected"),
        ({"lora": 3}, "--lora: expected no --consistency with it"),
        ({"controlnet": True}, "--controlnet: expected no --consistency with it"),
    ],
)
def test_what_contradicts_the_run_is_told_in_one_line(place, given, said):
    shutil.copytree("data", "other")
    Image.new("RGB", (32, 32)).save("other/2.png")
    with pytest.raises(InputError, match=said) as told:
        tune(**given)
    assert "\n" not in str(told.value)
    assert not Path("tuned").exists()


def test_a_run_without_a_null_condition_teaches_without_guidance(place):
    train_script.train({**SMALL_RUN, "out": "plain", "preset": "tiny-test", "cfg_drop": 0.0})
    with pytest.raises(InputError, match="--teacher-guidance 3.0: expected 1: plain was trained"):
        tune(consistency="plain", teacher_guidance=3.0)
    tune(consistency="plain", max_steps=1)
    assert read_config(find_checkpoint("tuned"))["settings"]["teacher_guidance"] == 1


def test_eps_and_a_consistency_run_are_no_start(place):
    train_script.train({**SMALL_RUN, "out": "eps", "preset": "tiny-test", "prediction": "eps"})
    with pytest.raises(InputError, match="--consistency eps: predicts eps"):
        tune(consistency="eps")
    tune(max_steps=1)
    with pytest.raises(InputError, match="--consistency tuned: is a consistency run already"):
        tune(consistency="tuned", out="again")


@pytest.mark.parametrize("name", ["consistency_from", "teacher_guidance"])
def test_options_of_the_method_need_it(place, name):
    given = {"consistency_from": "data", "teacher_guidance": 2.0}
    with pytest.raises(InputError, match="would be ignored, expected --consistency RUN"):
        train_script.train({**SMALL_RUN, "out": "other", name: given[name]})


def test_a_run_on_a_schedule_that_its_settings_do_not_say_is_no_start(place):
    file = find_checkpoint("run") / "config.json"
    config = without_seal(file)
    config["schedule"] |= {"kind": "linear"}
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match="its schedule or prediction is not that of its settings"):
        tune()


# ---- drawing


def test_a_consistency_run_is_drawn_by_its_solver_alone(place):
    tune(max_steps=1)
    task = find_task("text")
    plain, tuned = (read_config(find_checkpoint(run))["settings"] for run in ("run", "tuned"))
    usual = SampleOptions().drawing(task, plain)
    assert (usual.solver, usual.steps, usual.guidance) == (DPMSolver(), 25, 3)
    few = SampleOptions().drawing(task, tuned)
    assert (few.solver, few.steps, few.guidance) == (ConsistencySolver(), 2, 1)
    assert SampleOptions(steps=4, solver="consistency").drawing(task, tuned).steps == 4
    with pytest.raises(InputError, match="--guidance 2: the run was trained with --cfg-drop 0"):
        SampleOptions(guidance=2.0).drawing(task, tuned)
    with pytest.raises(InputError, match="--order 2: consistency has no order"):
        SampleOptions(order=2).drawing(task, tuned)

    prompts = [Request("0.png", "x"), Request("1.png", "xx")]
    how = Drawing(steps=2, guidance=1.0, precision="float32")
    with pytest.raises(
        InputError, match="^tuned.*: a run of train.py --consistency; expected --so"
    ):
        job.sample_images("tuned", prompts, "out", how=how, device="cpu")
    how = Drawing(2, ConsistencySolver(), guidance=1.0, precision="float32")
    with pytest.raises(
        InputError, match="--solver consistency: run.* is no run of train.py --cons"
    ):
        job.sample_images("run", prompts, "out", how=how, device="cpu")
    assert not Path("out").exists()
    both = job.sample_images("tuned", prompts, "out", how=how, device="cpu")
    alone = job.sample_images("tuned", prompts, "alone", how=how, device="cpu", batch_size=1)
    for name in ("0.png", "1.png"):
        assert torch.equal(to_bytes(Image.open(both / name)), to_bytes(Image.open(alone / name)))
    assert json.loads((both / "about/samples.json").read_text())["solver"] == {
        "name": "ConsistencySolver"
    }


def test_previews_are_drawn_by_it_as_well(place):
    tune(max_steps=2, sample_every=2)
    assert (Path("tuned/previews") / "step-0000002.png").is_file()
