"""The scripts of docs/examples, shortened: they run, they learn, and they are short.

Each of the four contracts of docs/design.md has its example from outside the package here:

    Denoiser  docs/examples/dit.py         test_a_transformer_trains_and_samples
    Solver    docs/examples/new_solver.py  test_a_solver_from_outside_is_of_second_order
    Encoder   docs/examples/new_task.py    test_a_task_from_outside_trains_and_samples
    Task      docs/examples/new_task.py    test_a_task_from_outside_trains_and_samples

tests/test_adapting_scripts.py trains a ControlNet with docs/examples/outlined_labels.py.
"""

import ast
import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import fresh
import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm import DDIM, DDPM, Condition, DPMSolver, NoiseSchedule, sample, training_loss
from tinyldm.diffusion.schedule import Level
from tinyldm.errors import InputError
from tinyldm.tasks.labels import LabelEncoder
from tinyldm.toy.monsters import write_toy
from tinyldm.training.network import DataShape, build_network

ROOT = Path(__file__).parent.parent

FOLDER = ROOT / "docs" / "examples"
LONGER = {"dit": 160, "new_task": 80}  # all of their lines


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_scripts_are_short(script):
    """Lines of code count: neither blank ones nor imports, nor the docstring on top."""
    source = script.read_text()
    if script.stem in LONGER:
        assert len(source.splitlines()) <= LONGER[script.stem]
        return
    tree = ast.parse(source)
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    aside = set()
    for node in (tree.body[0], *imports):  # the first is the docstring
        aside |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    assert len([line for number, line in lines if line.strip() and number not in aside]) < 40


@pytest.mark.slow
def test_digits_are_learned(monkeypatch):
    """Two patterns stand in for scikit-learn's digits; what is drawn is nearer to one of them than
    chance would be.
    """
    two = np.zeros((2, 8, 8))
    two[0, :, 3:5], two[1, 3:5] = 16, 16
    stand_in = ModuleType("sklearn.datasets")
    stand_in.load_digits = lambda: SimpleNamespace(images=two.repeat(50, 0))
    with monkeypatch.context() as patch:  # while the script is imported, and no longer
        patch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
        patch.setitem(sys.modules, "sklearn.datasets", stand_in)
        digits = load("digits")
    narrow = {**digits.LEVELS, "channels": (24, 48)}  # two patterns are less than ten digits
    monkeypatch.setattr(digits, "CONFIG", replace(digits.CONFIG, **narrow))
    patterns = torch.from_numpy(two).float()[:, None] / 8 - 1
    drawn = digits.draw(digits.train(patterns.repeat(50, 1, 1, 1), 120), 8)
    distances = (drawn[:, None] - patterns).abs().mean((2, 3, 4))
    assert drawn.abs().max() <= 1
    assert distances.min(1).values.mean() < 0.25
    assert len(set(distances.argmin(1).tolist())) == 2  # both are drawn


@pytest.mark.slow
def test_a_network_trained_elsewhere_is_sampled_with_fewer_calls():
    swap = load("swap_sampler")
    net = swap.train(600)
    for solver, steps in ((DDPM(), 1000), (DPMSolver(order=2), 30)):
        found = swap.draw(net, solver, steps, n=200)
        error = torch.cdist(found, swap.POINTS).min(1).values.mean()
        assert error < 0.35
        assert torch.cdist(found, swap.POINTS).argmin(1).unique().numel() == 8


@pytest.mark.slow
def test_a_palette_is_heeded(monkeypatch):
    palette = load("palette")
    narrow = {**palette.LEVELS, "channels": (16, 32)}  # flags of one colour are easy
    monkeypatch.setattr(palette, "CONFIG", replace(palette.CONFIG, **narrow))
    unet, asked = (
        palette.train(150),
        Condition(torch.tensor([[[0.9, -0.9, -0.9]] * 3, [[-0.9, -0.9, 0.9]] * 3])),
    )
    drawn = sample(
        unet, (2, 3, 12, 12), palette.SCHEDULE, DPMSolver(), steps=10, seeds=[0, 0], condition=asked
    )
    means = drawn.mean((2, 3))
    assert means[0, 0] > means[1, 0] + 0.5
    assert means[1, 2] > means[0, 2] + 0.5
    order = palette.flags(torch.rand(4, 3, 3))
    assert order.shape == (4, 3, 12, 12)
    assert torch.equal(order[:, :, 0], order[:, :, 11])


# ---- two prompts in one picture


def gaussian(x, t, condition):
    """E[x0 | x_t] for x0 ~ N(mean, 0.3^2), where the condition states the mean picture."""
    level = NoiseSchedule().level(t[0].item())
    gain = level.alpha * 0.09 / (level.alpha**2 * 0.09 + level.sigma**2)
    return condition.maps + gain * (x - level.alpha * condition.maps)


def drawn_with(mean, guidance=None):
    how = {"prediction": "x0", "seeds": [1, 2], "guidance": guidance}
    condition = Condition(maps=mean.expand(2, -1, -1, -1))
    return sample(gaussian, (2, 3, 6, 6), NoiseSchedule(), steps=10, condition=condition, **how)


def mean_pictures():
    return torch.randn(2, 1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def plain(denoiser):
    return denoiser


def test_an_anagram_shows_both_prompts_each_its_own_way_up():
    """Of two Gaussians, that is the Gaussian whose mean is halfway between the one and the other
    upside down."""
    first, second = mean_pictures()
    anagram = load("anagram").Anagram(plain, Condition(maps=second))
    expected = drawn_with((first + second.flip(-2, -1)) / 2)
    torch.testing.assert_close(drawn_with(first, anagram), expected, atol=1e-5, rtol=1e-5)
    turned = load("anagram").Anagram(plain, Condition(maps=first))
    mirrored = torch.randn(1, 3, 6, 6)
    t = torch.tensor([400.0])
    one = anagram(gaussian)(mirrored, t, Condition(maps=first))
    other = turned(gaussian)(mirrored.flip(-2, -1), t, Condition(maps=second))
    torch.testing.assert_close(one, other.flip(-2, -1))


def test_a_hybrid_is_coarse_as_one_prompt_and_fine_as_the_other():
    """Of two Gaussians, the Gaussian with the slow waves of one mean and the quick ones of the
    other."""
    far, near = mean_pictures()
    hybrid = load("hybrid").Hybrid(plain, Condition(maps=near), cut=0.25)
    slow = np.hypot(np.fft.fftfreq(6)[:, None], np.fft.fftfreq(6)) < 0.25
    waves = np.where(slow, np.fft.fft2(far.numpy()), np.fft.fft2(near.numpy()))
    expected = drawn_with(torch.from_numpy(np.fft.ifft2(waves).real).float())
    torch.testing.assert_close(drawn_with(far, hybrid), expected, atol=1e-5, rtol=1e-5)


# ---- the four contracts, from outside


def command(folder, script, *arguments):
    """A script of the repository as a process in a folder, with a cache of its own, offline."""
    environment = {
        **os.environ,
        "TINYLDM_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return fresh.run([ROOT / script, *arguments], folder, environment)


QUICK = ["--batch-size", "2", "--max-steps", "2", "--warmup", "1", "--precision", "float32"]
ALL_PARTS = DataShape(channels=3, size=(4, 6), token_dim=5, vector_dim=4, map_channels=2)


def small_dit(shape, seed=0):
    """The transformer of docs/examples/dit.py for such data, small."""
    torch.manual_seed(seed)
    fields = vars(shape)
    return load("dit").DiT(**fields, width=32, depth=2, heads=2)


def moved(network):
    """The network with its zeros replaced by random numbers, as if it had learnt something."""
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return network


def everything(b=2):
    """A condition with all of its parts, of which the last token of each row is masked."""
    mask = torch.tensor([[True, True, False]]).expand(b, 3)
    return Condition(torch.randn(b, 3, 5), mask, torch.randn(b, 4), torch.randn(b, 2, 4, 6))


def test_a_transformer_predicts_zero_at_first():
    network = small_dit(ALL_PARTS)
    x, t = torch.randn(2, 3, 4, 6), torch.tensor([10.0, 700.0])
    predicted = network(x, t, everything())
    assert predicted.shape == x.shape
    assert not predicted.any()
    tokens = torch.randn(2, 24 // 4, 32)  # and each of its blocks is the identity
    block, c = network.blocks[0], torch.randn(2, 32)
    told, mask = network.tokens(everything())
    assert torch.equal(block(tokens, c, told, mask), tokens)


def test_a_transformer_does_not_see_masked_tokens():
    network = moved(small_dit(ALL_PARTS))
    x, t, condition = torch.randn(2, 3, 4, 6), torch.tensor([10.0, 700.0]), everything()
    predicted = network(x, t, condition)
    tokens = condition.tokens.clone()
    tokens[:, 2] = 100.0
    other = Condition(tokens, condition.mask, condition.vector, condition.maps)
    assert torch.equal(network(x, t, other), predicted)
    assert torch.allclose(network(x, t, condition.padded(7)), predicted, atol=1e-5)
    nothing = Condition(
        condition.tokens, torch.zeros_like(condition.mask), condition.vector, condition.maps
    )
    assert network(x, t, nothing).isfinite().all()  # a caption of no tokens at all


def test_a_transformer_heeds_every_part_of_its_condition():
    network = moved(small_dit(ALL_PARTS))
    x, t, condition = torch.randn(2, 3, 4, 6), torch.tensor([10.0, 700.0]), everything()
    predicted = network(x, t, condition)
    assert not torch.allclose(network(x, t + 200, condition), predicted, atol=1e-3)
    for name in ("tokens", "vector", "maps"):
        parts = condition.parts()
        parts[name] = parts[name] + 1
        assert not torch.allclose(network(x, t, Condition(**parts)), predicted, atol=1e-3), name
    flipped = network(
        x.flip(3), t, Condition(**{**condition.parts(), "maps": condition.maps.flip(3)})
    )
    assert not torch.allclose(flipped.flip(3), predicted, atol=1e-3)  # it knows positions


def test_a_transformer_puts_each_patch_back_in_its_place():
    """Without attention a patch depends on itself alone: a changed pixel changes its patch."""
    network = moved(small_dit(DataShape(3, (4, 6))))
    for block in network.blocks:
        torch.nn.init.zeros_(block.self_attention.to_out[0].weight)
    x, t = torch.randn(1, 3, 4, 6), torch.tensor([300.0])
    y = x.clone()
    y[0, 1, 3, 2] += 1
    changed = (network(y, t) != network(x, t)).any(1)[0]
    assert changed[2:4, 2:4].all()
    assert changed.sum() == 4


def test_a_transformer_learns_one_latent_by_heart():
    network = small_dit(DataShape(channels=2, size=(4, 4)))
    schedule, generator = NoiseSchedule("cosine"), torch.Generator().manual_seed(0)
    x0 = torch.randn(1, 2, 4, 4, generator=generator).expand(32, -1, -1, -1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(200):
        loss = training_loss(network, x0, None, schedule, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert sum(losses[-10:]) / 10 < losses[0] / 10
    drawn = sample(network, (2, 2, 4, 4), schedule, steps=10, seeds=[1, 2])
    assert (drawn - x0[:2]).abs().mean() < 0.15


def test_a_transformer_is_built_for_any_data():
    """As train.py and load_checkpoint build it: by name, from plain values."""
    for shape in (ALL_PARTS, DataShape(4, (8, 8)), DataShape(4, (8, 8), vector_dim=7)):
        recipe = {
            "build": "docs.examples.dit:build",
            "arguments": json.loads(json.dumps(vars(shape))),
        }
        network = build_network(recipe)
        assert sum(p.numel() for p in network.parameters()) > 1e6


@pytest.mark.slow
def test_a_transformer_trains_and_samples(tmp_path):
    write_toy(tmp_path / "toy", train_monsters=1)
    network = ("--network", "docs.examples.dit:build", "--data", "toy", "--size", "32")
    tiny = ("--vae", "tiny", "--text-encoder", "tiny", "--out", "run")
    done = command(tmp_path, "train.py", *network, *tiny, *QUICK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "previews" / "step-0000002.png").is_file()
    prompt = ("--prompt", "a green ghost", "--out", "drawn")
    done = command(tmp_path, "sample.py", "--run", "run", "--steps", "2", *prompt)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "drawn" / "00-a-green-ghost.png") as image:
        assert image.size == (32, 32)


@pytest.mark.slow
def test_a_task_from_outside_trains_and_samples(tmp_path):
    for name in ("blue", "red"):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for k in range(3):
            image = Image.new("RGB", (16, 16), name)
            image.putpixel((k, k), (255, 255, 255))
            image.save(tmp_path / "colours" / name / f"{k}.png")
    task = ("--task", "docs.examples.new_task:ClassTask", "--data", "colours")
    small = ("--size", "16", "--preset", "toy", "--out", "run")
    done = command(tmp_path, "train.py", *task, *small, *QUICK)
    assert done.returncode == 0, done.stderr
    how = ("--run", "run", "--steps", "2", "--out", "drawn", "--guidance", "2")
    done = command(tmp_path, "sample.py", *how, "--prompt", "red", "--prompt", "blue")
    assert done.returncode == 0, done.stderr
    for file in ("00-red.png", "01-blue.png"):
        with Image.open(tmp_path / "drawn" / file) as image:
            assert image.size == (16, 16)
    done = command(tmp_path, "sample.py", "--run", "run", "--prompt", "green")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: no class 'green', expected one of blue, red"


def test_the_classes_of_a_task_from_outside_become_a_vector():
    encoder = load("new_task").ClassEncoder(["blue", "red"])
    vector = encoder.encode(["red", "blue", encoder.empty]).vector
    assert vector.tolist() == [[0, 1], [1, 0], [0, 0]]


def test_outlined_labels_are_told_as_labels_with_outlines_beside_them(tmp_path):
    """A picture that is black and white, half and half, has an outline on each side of the step."""
    half = Image.new("RGB", (8, 8), "white")
    half.paste("black", (0, 0, 4, 8))
    half.save(tmp_path / "half.png")
    labels = LabelEncoder(("red cube", "red sphere", "blue cube"), "tokens+vector")
    encoder = load("outlined_labels").OutlinedLabelEncoder(labels, (2, 2))
    asked = [f"{tmp_path / 'half.png'} | red cube, blue cube", encoder.empty]
    told, alone = encoder.encode(asked), labels.encode(["red cube, blue cube", ""])
    assert torch.equal(told.tokens, alone.tokens)
    assert torch.equal(told.mask, alone.mask)
    assert told.vector.tolist() == [[1, 0, 1], [0, 0, 0]]
    lines = torch.zeros(2, 1, 8, 8)
    lines[0, :, :, 3:5] = 1
    assert torch.equal(torch.nn.functional.pixel_shuffle(told.maps, 4), lines)
    with pytest.raises(InputError, match="no label 'red ball'"):
        encoder.check([f"{tmp_path / 'half.png'} | red ball"])
    with pytest.raises(InputError, match="nowhere.png: no such"):
        encoder.check(["nowhere.png | red cube"])


def test_a_solver_from_outside_is_of_second_order():
    """Half as long steps with a Gaussian's exact denoiser: a quarter of the error, Euler's half."""
    schedule = NoiseSchedule("cosine")

    def grid(n):  # k = sigma / alpha falls from 4 to 0; t says what it is
        return tuple(Level.of_sigma(k, k) for k in torch.linspace(4, 0, n + 1).tolist())

    def denoiser(x_t, t, condition):  # the mean of x0 ~ N(0, 1) given x_t
        return x_t / (1 + t[:, None] ** 2).sqrt()

    def error(solver, n):
        noise = torch.ones(1, 1)
        drawn = sample(
            denoiser, (1, 1), schedule, solver, spacing=grid(n), prediction="x0", noise=noise
        )
        return abs(drawn.item() - 1)  # x / alpha shrinks with sqrt(1 + k^2), so x stays

    adams = load("new_solver").AdamsBashforth()
    assert 3 < error(adams, 20) / error(adams, 40) < 5
    assert 1.6 < error(DDIM(), 20) / error(DDIM(), 40) < 2.4
    assert error(adams, 40) < error(DDIM(), 160)

    def knows(x_t, t, condition):
        return torch.full_like(x_t, 0.7)

    pure = NoiseSchedule("linear", zero_snr=True)  # starts where k is infinite
    drawn = sample(knows, (1, 1), pure, adams, 5, prediction="x0")
    assert drawn.item() == pytest.approx(0.7, abs=1e-5)
