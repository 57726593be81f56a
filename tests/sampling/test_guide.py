"""sample.py with a guide and with averages put together afterwards: pictures, records, refusals."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from test_drawing import (
    PROMPTS,
    QUICK,
    command,
    run,  # noqa: F401
)

from tinyldm.data.images import load_image
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.folders import RECORD
from tinyldm.sampling.job import sample_images
from tinyldm.sampling.settings import Drawing
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from tinyldm.weights import read_weights

pytestmark = pytest.mark.usefixtures("run")

RUN = Path("runs/pets")
FIRST = RUN / "checkpoints" / "step-0000007"


def written(folder, *, weights=None, std=None, averages=None, **facts):
    """A checkpoint like the first one, with other weights, latents or facts."""
    config = {**json.loads((FIRST / "config.json").read_text()), **facts}
    config.pop("checksum", None)  # of the file that was read
    latents = read_weights(FIRST / "latents.safetensors")
    if std is not None:
        latents["std"] = torch.full((3, 1, 1), std)
    groups = {"model": weights or read_weights(FIRST / "model.safetensors"), "latents": latents}
    if averages is not None:
        groups["averages"] = averages
    save_checkpoint(Path(folder), config, groups)
    return Path(folder)


def noisy(seed, scale=0.1):
    """The weights of the first checkpoint and some noise."""
    generator = torch.Generator().manual_seed(seed)
    weights = read_weights(FIRST / "model.safetensors")
    return {n: w + scale * torch.randn(w.shape, generator=generator) for n, w in weights.items()}


def pixels(folder):
    return [load_image(folder / request.name).tobytes() for request in PROMPTS]


def drawn(out, **how):
    return pixels(sample_images(RUN, PROMPTS, out, how=replace(QUICK, **how)))


def test_a_guide_leads_away_and_the_network_itself_does_not():
    weak = written("weak", weights=noisy(1))
    plain = drawn("plain", guidance=1.0)
    assert drawn("itself", guidance=1.0, guide=RUN, guide_scale=3.0) == plain
    assert drawn("one", guidance=1.0, guide=weak, guide_scale=1.0) == plain
    away = drawn("away", guidance=1.0, guide=weak, guide_scale=3.0)
    assert all(a != b for a, b in zip(away, plain, strict=True))
    # what the guide draws is the scale 0
    swapped = sample_images(weak, PROMPTS, "of-weak", how=replace(QUICK, guidance=1.0))
    zero = drawn("zero", guidance=1.0, guide=weak, guide_scale=0.0)
    for request, picture in zip(PROMPTS, zero, strict=True):
        ours = torch.frombuffer(bytearray(picture), dtype=torch.uint8).int()
        theirs = load_image(swapped / request.name).tobytes()
        gap = ours - torch.frombuffer(bytearray(theirs), dtype=torch.uint8).int()
        assert gap.abs().max() <= 1  # rounding alone


def test_a_guide_that_predicts_something_else_is_converted():
    flow = written("flow", weights=noisy(1), prediction="flow")
    same = written("same", weights=noisy(1))
    assert drawn("a", guide=flow, guide_scale=2.0) != drawn("b", guide=same, guide_scale=2.0)


def test_the_record_knows_the_guide_by_what_it_holds():
    weak = written("weak", weights=noisy(1))
    how = {"guidance": 1.0, "guide": weak, "guide_scale": 2.0}
    before = drawn("out", **how)
    record = json.loads(Path("out", RECORD).read_text())
    assert record["guide_checkpoint"] == "weak"
    assert len(record["guide"]) == 64
    assert record["guide_scale"] == 2.0
    Path("out/0.png").unlink()
    weak.rename("elsewhere")
    assert drawn("out", **how | {"guide": Path("elsewhere")}) == before
    with pytest.raises(InputError, match=r"guide_scale 2\.0, now 3\.0"):
        drawn("out", **how | {"guide": Path("elsewhere"), "guide_scale": 3.0})
    other = written("other", weights=noisy(2))
    for changed in (how | {"guide": other}, {"guidance": 1.0}):
        with pytest.raises(InputError, match="holds images of another job"):
            drawn("out", **changed)
    with pytest.raises(InputError, match="another guide"):
        drawn("out", **how | {"guide": other})
    assert pixels(Path("out")) == before


def test_records_of_before_there_were_guides_go_on():
    drawn("out")
    file = Path("out", RECORD)
    record = json.loads(file.read_text())
    new = {"guide", "guide_scale", "guide_ema_length", "ema_length"}
    assert {record[key] for key in new} == {None}
    file.write_text(json.dumps({k: v for k, v in record.items() if k not in new | {"checksum"}}))
    times = [Path("out", request.name).stat().st_mtime_ns for request in PROMPTS]
    drawn("out")
    assert times == [Path("out", request.name).stat().st_mtime_ns for request in PROMPTS]


def test_the_command_guides_by_a_checkpoint():
    written("weak", weights=noisy(1))
    assert command("--guide", "weak", "--steps", "2", "--out", "out") == 0
    record = json.loads(Path("out", RECORD).read_text())
    assert (record["guidance"], record["guide_scale"]) == (1.0, 2.0)
    both = ("--guide", "weak", "--steps", "2", "--guidance", "3", "--guide-scale", "1.5")
    assert command(*both, "--guidance-interval", "0.1", "3", "--out", "both") == 0
    record = json.loads(Path("both", RECORD).read_text())
    assert (record["guidance"], record["guide_scale"]) == (3.0, 1.5)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"latent_shape": [3, 4, 4]},
            "another shape of latents and conditions than the network that it would guide: size "
            "(4, 4), not (8, 8)\n",
        ),
        ({"vae_fingerprint": "other"}, "another vae"),
        ({"text_encoder_fingerprint": "other"}, "another encoder"),
        (
            {"schedule": asdict(NoiseSchedule("flow"))},
            "another schedule than the network that it would guide: kind flow, not cosine\n",
        ),
        ({"condition": {"task": "labels", "names": ["a"], "form": "tokens"}}, "another task"),
        ({"std": 0.6}, "another mean and deviation"),
        ({"settings": {"consistency": "runs/teacher"}}, "is a consistency run"),
    ],
)
def test_a_guide_of_another_kind_is_one_line_and_status_2(capsys, facts, said):
    written("weak", **facts)
    assert command("--guide", "weak") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --guide weak: ")
    assert said in error
    assert error.count("\n") == 1
    assert not Path("samples").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--guide", "nowhere"], "nowhere: no such folder"),
        (["--guide-scale", "2"], "--guide-scale 2: expected --guide with it"),
        (["--guide-ema-length", "0.1"], "--guide-ema-length 0.1: expected --guide with it"),
        (["--guide", "runs/pets", "--guide-scale", "nan"], "--guide-scale nan: expected a number"),
        (["--ema-length", "0.1"], "step-0000007 holds no averages; expected a run of train.py"),
        (["--ema-length", "0.3"], "--ema-length 0.3: expected a number from 0.001 to 0.288"),
        (["--ema-length", "0"], "--ema-length 0: expected a number"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, said):
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not Path("samples").exists()


def with_averages(step, seed):
    """A checkpoint of the run with two averages, each of them some weights of its own."""
    averages = {}
    for k, length in enumerate(("0.05", "0.1")):
        averages |= {f"{length}/{n}": w for n, w in noisy(10 * seed + k, 0.01).items()}
    folder = RUN / "checkpoints" / f"step-{step:07d}"
    lengths = {"ema_lengths": [0.05, 0.1], "ema_updates": step}
    return written(folder, weights=noisy(seed), averages=averages, step=step, **lengths)


def test_a_length_that_was_kept_is_drawn_with_as_it_is():
    for k in range(1, 5):
        folder = with_averages(100 * k, k)
    stored = read_weights(folder / "averages.safetensors")
    assert find_checkpoint(RUN) == folder
    for length in (0.05, 0.1):
        found = load_averaged(RUN, ema_length=length)
        for name, p in found.network.named_parameters():
            assert torch.equal(p, stored[f"{length:g}/{name}"])
        assert found.synthesis.error == 0
        assert list(found.synthesis.files) == ["step-0000400"]
    unchanged = load_averaged(RUN)
    for name, p in load_checkpoint(RUN).network.named_parameters():
        assert torch.equal(p, unchanged.network.get_parameter(name))


def test_another_length_is_made_of_the_checkpoints_up_to_this_one():
    for k in range(1, 6):
        with_averages(100 * k, k)
    with_averages(450, 6)  # where somebody had stopped the training
    shutil.rmtree(RUN / "checkpoints" / "step-0000200")
    folder = RUN / "checkpoints" / "step-0000400"
    drawn_with = {}
    for length in (0.07, 0.15):
        made = load_averaged(folder, ema_length=length)
        assert list(made.synthesis.files) == ["step-0000100", "step-0000300", "step-0000400"]
        assert 0 < made.synthesis.error < 0.2
        drawn_with[length] = made.network
    # on the line through the weights that the averages have in common: they add up to one
    common = read_weights(FIRST / "model.safetensors")
    for network in drawn_with.values():
        for name, p in network.named_parameters():
            assert (p - common[name]).abs().mean() < 0.05
            assert not torch.equal(p, common[name])


def test_the_record_knows_the_averages(capsys):
    for k in range(1, 5):
        folder = with_averages(100 * k, k)
    how = {"ema_length": 0.15}
    first = drawn("out", **how)
    record = json.loads(Path("out", RECORD).read_text())
    assert record["ema_length"] == 0.15
    assert len(record["averages"]["files"]) == 4
    assert drawn("out", **how) == first
    with pytest.raises(InputError, match="holds images of another job"):
        drawn("out", ema_length=0.1)
    assert drawn("plain") != first
    assert drawn("guided", guide=folder, guide_scale=2.0, guide_ema_length=0.15) != first
    shutil.rmtree(RUN / "checkpoints" / "step-0000300")
    with pytest.raises(InputError, match="another set of averages"):
        drawn("out", **how)
    assert command("--ema-length", "0.25", "--run", str(with_averages(600, 7))) == 2
    assert "come no closer to it than" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["damaged", "of another network", "gone"])
def test_averages_that_are_lost_are_one_line(capsys, harm):
    for k in (1, 2):
        folder = with_averages(100 * k, k)
    file = folder / "averages.safetensors"
    if harm == "gone":
        file.unlink()
    elif harm == "damaged":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        config = json.loads((folder / "config.json").read_text())
        config["ema_lengths"] = [0.05, 0.2]
        del config["checksum"]
        (folder / "config.json").write_text(json.dumps(config))
    assert command("--ema-length", "0.1") == 2
    error = capsys.readouterr().err
    assert "averages.safetensors: " in error
    assert error.count("\n") == 1


def test_a_scale_goes_with_a_guide():
    with pytest.raises(ValueError, match="expected --guide-scale with it"):
        Drawing(guide=Path("x"))
    with pytest.raises(ValueError, match="can't be combined with --guidance-map"):
        Drawing(guide=Path("x"), guide_scale=2.0, style=3.0)
