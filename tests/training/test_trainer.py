"""The training loop on a small cache in memory, with a network of a few thousand weights."""

import contextlib
import csv
import functools
import json
import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from safetensors import SafetensorError
from stand_ins import without_seal
from torch._dynamo.testing import CompileCounter

from tinyldm.autoencoder.perceptual import Perceptual
from tinyldm.cli import guarded
from tinyldm.condition import Condition
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.loss import Noised, draw_noise, training_loss
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNetConfig
from tinyldm.processes import ALONE, Processes, joined
from tinyldm.randomness import torch_stream
from tinyldm.sampling.drawing import Painter
from tinyldm.sampling.settings import Drawing
from tinyldm.signals import StopRequest
from tinyldm.training import trainer as training
from tinyldm.training.checkpoint import checkpoints, find_checkpoint, load_checkpoint
from tinyldm.training.learning_rate import learning_rate
from tinyldm.training.log import LossByNoise
from tinyldm.training.network import DataShape, build_network, network_recipe
from tinyldm.training.presets import PRESETS
from tinyldm.training.settings import TrainSettings
from tinyldm.training.trainer import Trainer

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=6
)
SETTINGS = TrainSettings(
    preset="tiny-test",
    schedule="cosine",
    prediction="v",
    t_sampling="uniform",
    optimizer="adamw",
    max_steps=10,
    batch_size=4,
    lr=1e-2,
    warmup=2,
    save_every=5,
    precision="float32",
    sample_every=1000,
)


class MemoryCache:
    """Twenty latents of 2x8x8 in memory, each with a token of its own."""

    mean, std = torch.tensor([0.3, -2.0])[:, None, None], torch.tensor([0.7, 5.0])[:, None, None]
    null = Condition(
        tokens=torch.linspace(-1, 1, 12).view(1, 2, 6), mask=torch.ones(1, 2, dtype=torch.bool)
    )

    longest = 2

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.latents = torch.randn(20, 2, 8, 8, generator=generator)
        self.tokens = torch.randn(20, 2, 6, generator=generator)
        self.seen = []

    def __len__(self):
        return len(self.latents)

    def batch(self, indices, generator, device="cpu"):
        self.seen += torch.as_tensor(indices).tolist()
        mask = torch.ones(len(indices), 2, dtype=torch.bool)
        return self.latents[indices].to(device), Condition(self.tokens[indices], mask).to(device)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny-test", TINY)


def trainer(
    run,
    cache=None,
    *,
    processes=ALONE,
    preview=None,
    facts=None,
    decoder=None,
    check=None,
    **changes,
):
    """A trainer of a fresh network. decoder: a frozen one, for the perceptual term."""
    run.mkdir(exist_ok=True)
    settings, cache = replace(SETTINGS, **changes), cache or MemoryCache()
    torch.manual_seed(settings.seed)
    network = build_network(network_recipe(settings, DataShape.of((2, 8, 8), cache.null)))
    return Trainer(
        network,
        cache,
        settings,
        run,
        processes=processes,
        preview=preview,
        facts=facts,
        check=check,
        perceptual=decoder and Perceptual(decoder, cache.mean, cache.std),
    )


def everything(t):
    """Weights, average and optimiser moments by name."""
    names = {p: n for n, p in t.network.named_parameters()}
    state = {f"weights.{n}": p.detach().clone() for n, p in t.network.named_parameters()}
    state |= {f"ema.{n}": p.clone() for n, p in t.ema.network.named_parameters()}
    for optimizer in t.optimizers:
        for p, moments in optimizer.state.items():
            state |= {f"{kind}.{names[p]}": value.clone() for kind, value in moments.items()}
    return state


def rows(run):
    with open(run / "log.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_nothing_is_saved_of_a_cache_that_turns_out_to_be_damaged(tmp_path):
    def damaged():
        raise InputError("latents.f16: damaged")

    with pytest.raises(InputError, match=r"latents\.f16: damaged"):
        trainer(tmp_path, check=damaged).fit()
    assert not checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("accumulate", "optimizer", "weights"),
    [(1, "adamw", "plain"), (4, "adamw", "even"), (2, "muon", "plain")],
)
def test_pitfall_10_resume_is_bit_for_bit(tmp_path, accumulate, optimizer, weights):
    how = {"accumulate": accumulate, "optimizer": optimizer, "loss_weights": weights}
    whole = trainer(tmp_path / "whole", **how)
    assert whole.fit()
    stop = StopRequest()

    def stop_at_five(_, file):
        stop.requested = file.name == "step-0000005.png"

    first = trainer(tmp_path / "parts", sample_every=1, preview=stop_at_five, **how)
    assert not first.fit(stop)
    assert first.progress.step == 5
    second = trainer(tmp_path / "parts", **how)
    with torch.no_grad():
        for p in second.network.parameters():
            p.add_(1)  # nothing of a fresh start may survive
    second.restore(find_checkpoint(tmp_path / "parts"))
    assert second.progress.step == 5  # not 20 with accumulation 4
    second.fit()
    a, b = everything(whole), everything(second)
    assert a.keys() == b.keys()
    assert len(a) > 50
    assert any(name.startswith("momentum.") for name in a) == (optimizer == "muon")
    assert [n for n in a if not torch.equal(a[n], b[n])] == []
    drop = ("images_per_second",)
    strip = [{k: v for k, v in row.items() if k not in drop} for row in rows(tmp_path / "whole")]
    assert strip == [
        {k: v for k, v in row.items() if k not in drop} for row in rows(tmp_path / "parts")
    ]
    assert [row["step"] for row in strip] == [str(k) for k in range(1, 11)]


def test_stop_saves_the_step_it_stopped_at(tmp_path):
    stop = StopRequest()
    stop.requested = True
    t = trainer(tmp_path / "run")
    assert not t.fit(stop)
    assert [c.name for c in checkpoints(tmp_path / "run")] == ["step-0000001"]


def test_pitfall_20_an_infinite_gradient_changes_nothing_and_repeated_ends_the_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "MAX_SKIPPED", 3)
    t = trainer(tmp_path / "run", max_steps=8, loss_weights="even")
    real, calls = training.prediction_error, []

    def error(*arguments, **options):
        calls.append(everything(t))
        value = real(*arguments, **options)
        return value * float("inf") if len(calls) in poisoned else value

    monkeypatch.setattr(training, "prediction_error", error)
    poisoned = {3, 5, 6, 8, 9}  # many, but no three in a row
    t.fit()
    assert t.progress.step == 8
    assert t.progress.skipped == 5
    assert t.ema.updates == 8
    before, after = calls[2], calls[3]  # as call 3 (poisoned) and call 4 found them
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert not torch.equal(calls[3]["weights.conv_out.bias"], calls[4]["weights.conv_out.bias"])

    again = trainer(tmp_path / "run", max_steps=100, loss_weights="even")
    again.restore(find_checkpoint(tmp_path / "run"))
    assert again.progress.skipped == 5
    poisoned = range(1000)
    with pytest.raises(InputError, match="infinite gradients in a row at step 8"):
        again.fit()
    assert load_checkpoint(tmp_path / "run").config["step"] == 8


def test_pitfall_09_what_is_saved_is_the_average_of_this_run(tmp_path):
    """With decay 0 that is the network after its last step.

    With decay it lies between there and the start.
    """
    for decay in (0.0, 0.9):
        t = trainer(tmp_path / f"{decay}", ema=decay)
        start = {name: p.detach().clone() for name, p in t.network.named_parameters()}
        t.fit()
        saved = load_checkpoint(tmp_path / f"{decay}").network.state_dict()
        for name, p in t.network.named_parameters():
            assert (
                torch.equal(saved[name], p)
                if decay == 0
                else not torch.equal(saved[name], start[name])
            )
            assert (saved[name] - p).norm() <= (start[name] - p).norm()


def gradients(t):
    return torch.cat([p.grad.flatten() for p in t.network.parameters()])


def test_pitfall_41_the_gradient_of_a_batch_is_the_mean_of_its_parts(tmp_path):
    """Four parts of one image each, and the four images as steps of their own: the mean of their
    gradients, where the trap has the sum. The average of the weights moves once for all four."""
    whole, single = (trainer(tmp_path / f"{n}", batch_size=n, accumulate=n) for n in (4, 1))
    loss, parts = whole.gradient(), []
    for single.progress.step in range(4):
        parts.append((single.gradient(), gradients(single)))
    assert loss.item() == pytest.approx(sum(part.item() for part, _ in parts) / 4)
    torch.testing.assert_close(gradients(whole), torch.stack([g for _, g in parts]).mean(0))
    assert gradients(whole).norm() > 0
    total = torch.stack([g for _, g in parts]).sum(0)
    assert (total - gradients(whole)).norm() > 2 * gradients(whole).norm()
    whole.fit()
    assert whole.ema.updates == whole.progress.step > 0


def test_what_a_step_minimises_and_where_it_is_clipped(tmp_path):
    t = trainer(
        tmp_path / "run",
        snr_gamma=0.3,
        loss_weights="plain",
        cfg_drop=0.5,
        prediction="x0",
        schedule="linear",
        zero_snr=True,
        shift=0.7,
        max_steps=1,
        clip=1e-3,
        t_sampling="uniform",
    )
    x0, condition, generator = t.batch(0)
    schedule = NoiseSchedule("linear", zero_snr=True, shift=0.7)
    expected = (
        training_loss(
            t.network,
            x0,
            condition,
            schedule,
            "x0",
            snr_gamma=0.3,
            null=t.cache.null,
            cfg_drop=0.5,
            generator=generator,
        )
        .mean()
        .item()
    )
    t.fit()
    (row,) = rows(tmp_path / "run")
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-3)
    assert gradients(t).norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert float(row["grad_norm"]) > 0.01


def test_the_straight_path_is_trained_at_the_timesteps_asked_for(tmp_path):
    t = trainer(
        tmp_path / "run",
        schedule="flow",
        prediction="flow",
        t_sampling="logit-normal",
        cfg_drop=0.5,
        max_steps=1,
    )
    x0, condition, generator = t.batch(0)
    dropped = torch.rand(4, generator=generator) < 0.5
    times = (torch.randn(4, generator=generator).sigmoid() * 1000).floor()
    eps = torch.randn(x0.shape, generator=generator)
    sigma = ((times + 1) / 1000 / (0.5 + 0.5 * (times + 1) / 1000)).view(-1, 1, 1, 1)  # shift 0.5
    told = condition.drop(t.cache.null, dropped)
    with torch.no_grad():
        u = t.network((1 - sigma) * x0 + sigma * eps, times, told)
    expected = (u - (eps - x0)).square().mean().item()
    t.fit()
    (row,) = rows(tmp_path / "run")
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    saved = load_checkpoint(tmp_path / "run")
    assert (saved.prediction, saved.schedule) == ("flow", NoiseSchedule("flow", shift=0.5))


def test_the_loss_by_noise_is_that_of_the_steps_since_the_last_checkpoint(tmp_path):
    how = {"accumulate": 2, "batch_size": 20, "loss_weights": "plain"}
    t = trainer(tmp_path / "run", max_steps=8, save_every=5, **how)
    t.fit()
    with open(tmp_path / "run" / "loss_by_noise.csv", newline="") as stream:
        found = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
    assert sum(row["samples"] for row in found) == 3 * 20
    total = sum(row["samples"] * row["loss"] for row in found)
    logged = [float(row["loss"]) for row in rows(tmp_path / "run")]
    assert total / 60 == pytest.approx(sum(logged[5:]) / 3, rel=1e-4)
    assert [row["t"] for row in found] == sorted({row["t"] for row in found})
    assert all((row["t"] - 24.5) % 50 == 0 for row in found)
    for row in found:
        level = t.schedule.level(row["t"])
        assert row["sigma_over_alpha"] == pytest.approx(level.sigma / level.alpha, rel=1e-4)


def test_each_loss_falls_into_the_bin_of_its_timestep(tmp_path):
    kept = LossByNoise(NoiseSchedule(), torch.device("cpu"))
    kept.add(torch.tensor([0, 49, 50, 999]), torch.tensor([1.0, 2.0, 5.0, 7.0]))
    kept.write(tmp_path)
    lines = (tmp_path / "loss_by_noise.csv").read_text().split()
    assert [line.split(",")[::2] for line in lines[1:]] == [
        ["24.5", "2"],
        ["74.5", "1"],
        ["974.5", "1"],
    ]
    assert [line.split(",")[3] for line in lines[1:]] == ["1.5", "5", "7"]


@pytest.mark.parametrize("how", ["stratified", "uniform"])
def test_the_times_of_a_batch_are_spread_evenly(tmp_path, monkeypatch, how):
    """One from each of as many parts of the schedule as there are pictures; else anywhere."""
    drawn, real = [], training.prediction_error

    def error(predicted, noised, *arguments, **options):
        drawn.append(noised.t)
        return real(predicted, noised, *arguments, **options)

    monkeypatch.setattr(training, "prediction_error", error)
    trainer(tmp_path / "run", batch_size=8, max_steps=60, t_sampling=how).fit()
    times = torch.stack(drawn).sort(1)[0]  # (60, 8)
    assert times.dtype == torch.int64
    spread = (times // (1000 // 8) == torch.arange(8)).all(1)
    assert spread.all() if how == "stratified" else spread.sum() < 5
    if how == "stratified":  # within its part, each time is uniform
        within = times[:, 0].float()
        assert within.mean().item() == pytest.approx(62, abs=15)  # known to 125 / (12 x 60)^0.5
        assert within.std().item() == pytest.approx(125 / 12**0.5, rel=0.2)


def test_loss_falls_on_one_picture(tmp_path):
    """One latent can be learned by heart: the loss ends far below the variance of v, which is 1."""
    cache = MemoryCache()
    cache.latents, cache.tokens = cache.latents[:1], cache.tokens[:1]
    t = trainer(tmp_path / "run", cache, max_steps=150, batch_size=16, warmup=10, save_every=1000)
    t.fit()
    losses = [float(row["loss"]) for row in rows(tmp_path / "run")]
    assert 0.8 < losses[0] < 1.3
    assert sum(losses[-10:]) / 10 < 0.5


def test_pitfall_23_checkpoint_holds_all_that_sampling_needs(tmp_path):
    facts = {"vae": "tiny", "latent_shape": [2, 8, 8]}
    t = trainer(tmp_path / "run", cfg_drop=0.5, facts=facts)
    t.fit()
    checkpoint = load_checkpoint(tmp_path / "run")
    x, time = torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0])
    condition = Condition(torch.randn(2, 2, 6))
    assert torch.equal(checkpoint.network(x, time, condition), t.ema.network(x, time, condition))
    assert checkpoint.schedule == t.schedule
    assert checkpoint.prediction == "v"
    assert torch.equal(checkpoint.null.tokens, t.cache.null.tokens)
    assert torch.equal(checkpoint.null.mask, t.cache.null.mask)
    assert torch.equal(checkpoint.mean, t.cache.mean)
    assert torch.equal(checkpoint.std, t.cache.std)
    assert checkpoint.config["vae"] == "tiny"
    assert checkpoint.config["latent_shape"] == [2, 8, 8]
    assert not checkpoint.network.training
    text = (checkpoint.path / "config.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # no Infinity, which other readers of JSON refuse
    older, newest = checkpoints(tmp_path / "run")
    assert (newest / "training.safetensors").exists()
    assert load_checkpoint(older).config["step"] == 5


def test_a_disk_that_fills_while_weights_are_written_is_one_line(tmp_path, monkeypatch, capsys):
    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise SafetensorError("I/O error: File too large (os error 27)")

    t = trainer(tmp_path / "run")
    monkeypatch.setattr("tinyldm.weights.save_file", full)
    assert guarded(t.fit) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path}")
    assert "step-0000005" in line
    assert "File too large" in line
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def heard(network):
    """A list that fills with the condition of each call of the network."""
    conditions = []
    network.register_forward_pre_hook(lambda module, args: conditions.append(args[2]))
    return conditions


def test_pitfall_24_training_checkpoint_and_sampling_have_one_null_condition(tmp_path):
    t = trainer(tmp_path / "run", cfg_drop=1.0, max_steps=2)
    trained = heard(t.network)
    t.fit()
    checkpoint = load_checkpoint(tmp_path / "run")
    sampled = heard(checkpoint.network)
    Painter(
        network=checkpoint.network,
        latent_shape=(2, 8, 8),
        vae=Grey(),
        schedule=checkpoint.schedule,
        prediction=checkpoint.prediction,
        mean=checkpoint.mean,
        std=checkpoint.std,
        guidance=Guidance(3.0, checkpoint.null),
        how=Drawing(steps=2, guidance=3.0, precision="float32"),
    ).draw(Condition(torch.randn(3, 2, 6)), [1, 2, 3])
    assert len(trained) == len(sampled) == 2
    nulls = [c[[k]] for c in trained for k in range(4)] + [
        c[[k]] for c in sampled for k in (3, 4, 5)
    ]
    for null in nulls:
        assert torch.equal(null.tokens, t.cache.null.tokens)
        assert torch.equal(null.mask, t.cache.null.mask)


class Grey:
    """An autoencoder all of whose pictures are grey."""

    def decode(self, latents):
        return torch.zeros(len(latents), 3, 4, 4)


def test_pitfall_11_parts_of_a_batch_are_no_steps(tmp_path):
    """With 1, 2 and 4 parts the log shows as many steps and the same rates."""
    logs = []
    for parts in (1, 2, 4):
        how = {"accumulate": parts, "optimizer": "muon", "max_steps": 6}
        t = trainer(tmp_path / f"{parts}", lr_schedule="cosine", **how)
        t.fit()
        logs.append(rows(tmp_path / f"{parts}"))
        adamw, muon = t.optimizers
        logged = float(logs[-1][-1]["lr"])
        for group in adamw.param_groups:  # what is logged is what the optimiser went by
            assert group["lr"] == pytest.approx(logged, rel=1e-5)
        (group,) = muon.param_groups
        assert group["lr"] == pytest.approx(logged * SETTINGS.muon_lr / SETTINGS.lr, rel=1e-5)
    assert [row["step"] for row in logs[0]] == list("123456")
    assert len({float(row["lr"]) for row in logs[0]}) > 4
    for log in logs[1:]:
        assert [(row["step"], row["lr"]) for row in log] == [
            (row["step"], row["lr"]) for row in logs[0]
        ]


def test_a_checkpoint_of_another_architecture_is_named(tmp_path):
    t = trainer(tmp_path / "run")
    t.fit()
    file = find_checkpoint(tmp_path / "run") / "config.json"
    config = without_seal(file)
    config["network"]["channels"] = [16, 16]
    file.write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"does not fit its config: .*conv_in.bias has shape .8,., expected .16,."
    ):
        load_checkpoint(tmp_path / "run")
    file.write_text("{")
    with pytest.raises(InputError, match=r"config.json: not JSON"):
        load_checkpoint(tmp_path / "run")


def test_a_checkpoint_of_a_trainer_that_knows_no_data_says_what_it_lacks(tmp_path):
    """Such as one from a script of one's own: sampling asks for the frozen models by name."""
    trainer(tmp_path / "run").fit()
    with pytest.raises(InputError, match=r"config.json: says nothing of 'vae'"):
        load_checkpoint(tmp_path / "run").config["vae"]


def test_a_run_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint(tmp_path / "none")


def test_a_compiled_network_meets_one_shape_alone(tmp_path, monkeypatch):
    """Captions of one batch may all be shorter than those of the next.

    What is padded changes nothing.
    """
    shapes, cache = [], MemoryCache()
    cache.longest, whole = 5, cache.batch

    def cut(indices, generator, device="cpu"):
        x0, condition = whole(indices, generator, device)
        n = 1 + int(indices[0]) % 2
        return x0, Condition(condition.tokens[:, :n], condition.mask[:, :n])

    def compiled(network, dynamic):
        assert dynamic is False
        return lambda x, t, condition: (
            shapes.append(condition.tokens.shape) or network(x, t, condition)
        )

    cache.batch = cut
    monkeypatch.setattr(torch, "compile", compiled)
    for name, compile in {"compiled": True, "plain": False}.items():
        trainer(tmp_path / name, cache, compile=compile).fit()
    assert len(shapes) == 10
    assert set(shapes) == {(4, 5, 6)}
    losses = [
        [float(row["loss"]) for row in rows(tmp_path / name)] for name in ("compiled", "plain")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_compiled_network_is_compiled_once(tmp_path, monkeypatch):
    """By torch's own count of compiled graphs: the length of captions, t and dropped conditions
    vary from step to step, and no graph is compiled again."""
    cache, counter = MemoryCache(), CompileCounter()
    cache.longest, whole, real = 5, cache.batch, torch.compile

    def cut(indices, generator, device="cpu"):
        x0, condition = whole(indices, generator, device)
        n = 1 + int(indices[0]) % 2
        return x0, Condition(condition.tokens[:, :n], condition.mask[:, :n])

    cache.batch = cut
    compiled = functools.partial(real, backend=counter)
    monkeypatch.setattr(torch, "compile", compiled)
    torch._dynamo.reset()
    trainer(tmp_path / "run", cache, compile=True, cfg_drop=0.5).fit()
    assert counter.frame_count == 1


def test_pitfall_25_no_part_of_a_step_waits_for_the_device(tmp_path, monkeypatch):
    """On the meta device there is nothing to read: whoever waits for a value fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    there = Processes(device=torch.device("meta"))
    plain, even = {"loss_weights": "plain"}, {"loss_weights": "even"}
    weighted = {**plain, "snr_gamma": 5.0, "accumulate": 2}
    for name, settings in {"plain": plain, "weighted": weighted, "even": even}.items():
        t = trainer(tmp_path / name, processes=there, cfg_drop=0.5, **settings)
        loss = t.gradient()
        norm = torch.nn.utils.clip_grad_norm_(t.network.parameters(), 1.0)
        if name == "even":
            t.loss_weights.settle(there)
        t.ema.update(t.network)
        assert loss.device == norm.device == torch.device("meta")


def test_a_batch_that_cannot_be_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="--batch-size 4: expected a multiple of 3"):
        trainer(tmp_path / "run", accumulate=3)


OF_TWO = {"max_steps": 5, "lr": 1e-3, "optimizer": "muon", "loss_weights": "even"}


def _one_of_two(rank, port, folder, results):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    PRESETS["tiny-test"] = TINY
    seen = []
    real = training.drop_condition

    def drop(condition, null, cfg_drop, generator):
        seen.append(torch.randn(3, generator=generator.clone_state()).tolist())
        return real(condition, null, cfg_drop, generator)

    training.drop_condition = drop  # the first step of the loss
    with joined(torch.device("cpu")) as processes:
        cache = MemoryCache()
        t = trainer(folder, cache, processes=processes, accumulate=2, **OF_TWO)
        assert t.optimizers[1].processes is processes  # which share Muon's work
        t.fit()
        weights = torch.cat([p.detach().flatten() for p in t.network.parameters()]).tolist()
    results[rank] = (seen, cache.seen, weights)


@pytest.mark.slow
def test_pitfall_27_two_processes_differ_in_noise_and_data_and_agree_in_weights(
    tmp_path, monkeypatch
):
    """Batches of 4 over 20 images, 2 processes, accumulation 2.

    An epoch of 5 steps sees each image once. One process that is given the same noise for each
    image ends with the same weights.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_one_of_two, (port, tmp_path / "two", results), nprocs=2)
        (noise_0, data_0, weights_0), (noise_1, data_1, weights_1) = results[0], results[1]
    draws = [tuple(x) for x in noise_0 + noise_1]
    assert len(draws) == 20
    assert len(set(draws)) == 20
    assert sorted(data_0 + data_1) == list(range(20))
    assert weights_0 == weights_1
    assert [c.name for c in checkpoints(tmp_path / "two")] == ["step-0000005"]
    log = rows(tmp_path / "two")
    assert [row["step"] for row in log] == ["1", "2", "3", "4", "5"]
    one_process = [learning_rate(k, replace(SETTINGS, **OF_TWO)) for k in range(5)]
    assert [float(row["lr"]) for row in log] == pytest.approx(one_process, rel=1e-3)  # (pitfall 11)

    def of_two(seed, purpose, rank=0, position=0):
        return torch_stream(seed, purpose, rank=position % 2, position=position // 2)

    monkeypatch.setattr(training, "torch_stream", of_two)
    alone = trainer(tmp_path / "one", accumulate=4, **OF_TWO)
    alone.fit()
    weights = torch.cat([p.detach().flatten() for p in alone.network.parameters()])
    torch.testing.assert_close(torch.tensor(weights_0), weights, atol=1e-5, rtol=0)
    assert weights.std() > 0.1


class Decoder(torch.nn.Module):
    """A frozen autoencoder with a small decoder, which counts the values that it is shown."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.shown = 0
        self.conv_in, self.mid_block = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.SiLU()
        self.up_block = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.requires_grad_(False)

    def features(self, latents):
        self.shown += len(latents)
        middle = self.mid_block(self.conv_in(latents))
        return [middle, self.up_block(middle)]


def noised(t, x0, eps, time):
    """x0 with noise eps at the same time in each row, as the trainer's loss makes it."""
    return draw_noise(x0, t.schedule, t=torch.full((len(x0),), time), eps=eps)


def test_the_perceptual_term_reaches_the_network_from_its_step_on(tmp_path):
    """The gradient of the term alone moves the network.

    It goes through the frozen decoder and the estimate of x0.
    """
    vae = Decoder()
    t = trainer(tmp_path / "run", perceptual=1.0, perceptual_from=2, batch_size=8, decoder=vae)
    x0, condition, _ = t.batch(0)
    eps = torch.randn_like(x0)
    seen = noised(t, x0, eps, 200.0)
    t.perceptual(t.denoiser(seen.x_t, seen.t, condition), seen, "v").backward()
    assert t.network.conv_out.weight.grad.abs().max() > 0
    assert vae.conv_in.weight.grad is None
    perfect = seen.level.alpha * eps - seen.level.sigma * x0  # v
    assert t.perceptual(perfect, seen, "v").item() == pytest.approx(0, abs=1e-9)
    # more noise than signal: nothing counts
    assert t.perceptual(perfect, replace(seen, level=noised(t, x0, eps, 950.0).level), "v") == 0
    for step, before in ((0, vae.shown), (1, vae.shown)):
        t.progress.step = step
        t.gradient()
        assert vae.shown == before
    t.progress.step = 2
    t.gradient()
    assert vae.shown > before


def test_the_perceptual_term_counts_by_its_weight_and_the_share_of_clear_samples(tmp_path):
    losses = []
    for weight in (0.0, 10.0, 20.0):
        t = trainer(tmp_path / f"run{weight}", perceptual=weight, batch_size=8, decoder=Decoder())
        losses.append(t.gradient().item())
    assert losses[1] - losses[0] > 0.01
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)
    x0, guess = torch.randn(2, 8, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    some, clear = torch.tensor([200.0] * 2 + [950.0] * 6), torch.full((2,), 200.0)

    def term(n, times):
        level = t.schedule.level(times).like(x0[:n])
        seen = Noised(x0[:n], torch.zeros(n, 2, 8, 8), times, level, x_t=guess[:n])
        return t.perceptual(guess[:n] / 2, seen, "v").item()

    assert term(8, some) == pytest.approx(term(2, clear) / 4, rel=1e-4)


def test_the_perceptual_term_lowers_what_it_measures(tmp_path):
    """After equally long on one picture, its features are nearer to the truth with the term."""
    ends = {}
    for weight in (0.0, 10.0):
        cache = MemoryCache()
        cache.latents, cache.tokens = cache.latents[:1], cache.tokens[:1]
        t = trainer(
            tmp_path / f"run{weight}",
            cache,
            decoder=Decoder(),
            max_steps=60,
            batch_size=16,
            save_every=1000,
            perceptual=weight,
        )
        t.fit()
        x0, condition, _ = t.batch(0)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
        seen = noised(t, x0, eps, 100.0)
        with torch.no_grad():
            predicted = t.denoiser(seen.x_t, seen.t, condition)
            ends[weight] = t.perceptual(predicted, seen, "v").item()
    assert ends[10.0] < 0.9 * ends[0.0]


@pytest.mark.parametrize("name", ["model", "latents", "training"])
def test_a_bit_that_has_flipped_in_a_checkpoint_is_noticed(tmp_path, name):
    """The value is as finite as before; the checkpoint before this one is offered."""
    run = tmp_path / "run"
    trainer(run, max_steps=4, save_every=2).fit()
    older, newest = checkpoints(run)
    file = newest / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    file.write_bytes(content)
    read = trainer(run).restore if name == "training" else load_checkpoint
    with pytest.raises(InputError, match=rf"{file}: damaged.*checkpoint before it is {older}"):
        read(newest)
    assert load_checkpoint(older).config["step"] == 2
    config = without_seal(newest / "config.json")
    del config["checksums"]  # as the first checkpoints are: nobody can tell
    (newest / "config.json").write_text(json.dumps(config))
    trainer(run).restore(newest)
    load_checkpoint(newest)
