"""The course in a world of one picture, in which it is known what every drawing must be.

The best guess of x0 is that picture there, whatever the noise. Here the run's network says so: by v
on the cosine path, or by the velocity on the straight one. Then all that a chapter or a script of
figures draws with it is that picture, unless it takes what the network says for something else.
"""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_chapters import CHAPTERS, COURSE, run

import tinyldm
from tinyldm import NoiseSchedule, sample
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.methods.editing import invert
from tinyldm.training.checkpoint import load_checkpoint

RUN = Path("runs/toy-1")


@pytest.fixture(params=["v", "flow"])
def picture(request, place, monkeypatch):
    """The latents (1, c, h, w) of the only picture that the run knows, which predicts v or flow."""
    kind = request.param
    schedule = NoiseSchedule("flow" if kind == "flow" else "cosine")
    first = sorted(Path("data/toy/train").glob("*.png"))[0]
    x0 = tinyldm.load(RUN, device="cpu").encode([first])

    def exact(x_t, t):
        level = schedule.level(t).like(x_t)
        eps = (x_t - level.alpha * x0) / level.sigma
        return eps - x0 if kind == "flow" else level.alpha * eps - level.sigma * x0

    # its thousands of calls are made for what the network says, not for what it does
    idle = request.node.name == f"test_a_script_of_figures_draws_the_one_picture[{kind}-06]"

    def loaded(*args, **how):
        """The checkpoint; its network runs all of its layers, and says what is exact."""
        checkpoint = load_checkpoint(*args, **how)
        network, asked = checkpoint.network, []
        encode, decode = network.encode, network.decode

        def noted(x_t, t, condition):
            asked[:] = x_t, t
            return (x_t, [], {}) if idle else encode(x_t, t, condition)

        def decoded(h, skips, told):
            if not idle:
                decode(h, skips, told)
            return exact(*asked)

        network.encode, network.decode = noted, decoded
        return replace(checkpoint, schedule=schedule, prediction=kind)

    monkeypatch.setattr("tinyldm.model.load_checkpoint", loaded)
    monkeypatch.setattr("tinyldm.training.checkpoint.load_checkpoint", loaded)
    return x0


def assert_close(one, other, rtol=0.0):
    torch.testing.assert_close(one, other, atol=1e-3, rtol=rtol)


def assert_it_is(picture, drawn):
    assert_close(drawn, picture.expand_as(drawn))


def noise_of(x0, picture, schedule):
    """Where the way up ends that begins with x0, taken for x_t at t = 0.

    The noise that is seen in x_t, with the one picture behind it, is the same all the way.
    """
    first, last = schedule.level(0), schedule.level(schedule.timesteps - 1)
    eps = (x0 - first.alpha * picture) / first.sigma
    return last.alpha * picture + last.sigma * eps


def chapter(number):
    (path,) = (path for path in CHAPTERS if path.stem.startswith(number))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("number", ["06", "07", "09", "11"])
def test_a_chapter_draws_the_one_picture(number, picture, monkeypatch):
    seen = []

    def noting(denoiser, shape, *args, **how):
        drawn = sample(denoiser, shape, *args, **how)
        if tuple(shape[1:]) == picture.shape[1:]:  # there are examples on a line as well
            seen.append((denoiser, drawn))
        return drawn

    monkeypatch.setattr(tinyldm, "sample", noting)
    names = run(chapter(number))
    mistaken = names.get("in_seconds")  # which chapter 9 does on purpose
    meant = [drawn for denoiser, drawn in seen if denoiser is not mistaken]
    assert meant
    for drawn in meant:
        assert_it_is(picture, drawn)


@pytest.mark.slow
def test_chapter_11_finds_the_noise_that_the_picture_comes_from(picture):
    names = run(chapter("11"))
    schedule = names["model"].schedule
    assert_close(names["noise"], noise_of(names["x0"], picture, schedule))


@pytest.mark.slow
def test_chapter_9_prints_the_loss_of_that_network(picture, capsys):
    """At a given x_t, an error of 1 in x0 is one of 1 / sigma in v, and in the velocity, too."""
    names = run(chapter("09"))
    error = (names["x0"] - picture).square().mean().item()
    assert error > 0.1
    printed = re.findall(r"^t = (\d+): (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(printed) == 5
    for t, loss in printed:
        sigma = names["model"].schedule.level(int(t)).sigma
        assert float(loss) == pytest.approx(error / sigma**2, rel=1e-3, abs=1e-3)


# ---- figures

PARTS = {  # what of a script of figures draws with the run
    "04": lambda script, model, out: script.draw_skips(RUN, out),
    "05": lambda script, model, out: (
        script.draw_words(model, out),
        script.draw_switch(model, out),
    ),
    "06": lambda script, model, out: (
        script.draw_solvers(model, out),
        script.run_errors(model, [5]),
    ),
    "07": lambda script, model, out: script.draw_scales(model, RUN, out),
    "09": lambda script, model, out: script.mistakes(model),
    "11": lambda script, model, out: (
        script.editing(model, out),
        script.between(model, out),
    ),
}


def script_of(number, monkeypatch):
    """The script that draws the figures of a chapter, as a module."""
    monkeypatch.syspath_prepend(COURSE)  # for style.py
    spec = importlib.util.spec_from_file_location("figures", COURSE / f"figures_{number}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.slow
@pytest.mark.parametrize("number", PARTS)
def test_a_script_of_figures_draws_the_one_picture(number, picture, tmp_path, monkeypatch):
    script, seen, found = script_of(number, monkeypatch), [], []

    def noting_sample(*args, **how):
        seen.append(sample(*args, **how))
        return seen[-1]

    def noting_x0(*args):
        x0, eps = to_x0_eps(*args)
        seen.append(x0)
        return x0, eps

    def noting_noise(denoiser, x0, *args, **how):
        noise = invert(denoiser, x0, *args, **how)
        found.append((x0, noise))
        return noise

    notes = {"sample": noting_sample, "to_x0_eps": noting_x0, "invert": noting_noise}
    for name, noting in notes.items():
        monkeypatch.setattr(script, name, noting, raising=False)
    model = tinyldm.load(RUN, device="cpu")
    PARTS[number](script, model, tmp_path)
    assert seen
    for drawn in seen[:1] if number == "09" else seen:  # what follows there are mistakes
        assert_it_is(picture, drawn)
    for x0, noise in found:
        assert_close(noise, noise_of(x0, picture, model.schedule), rtol=1e-3)


@pytest.mark.slow
def test_the_curve_of_figure_9_is_the_loss_of_that_network(picture, tmp_path, monkeypatch):
    """The error of v, whatever the run predicts, for x_t of size 1 on every path."""
    script, seen = script_of("09", monkeypatch), []
    losses = script.losses

    def noting(network, x0, condition, schedule):
        seen.append((x0, losses(network, x0, condition, schedule)))
        return seen[-1][1]

    monkeypatch.setattr(script, "losses", noting)
    model = tinyldm.load(RUN, device="cpu")
    script.loss_by_noise(model, RUN, tmp_path)
    assert seen
    for x0, values in seen:
        error = (x0 - picture).square().mean().item()
        for t, value in zip(script.TIMES, values, strict=True):
            level = model.schedule.level(t)
            size = level.alpha**2 + level.sigma**2  # of x_t, for data of size 1
            assert value == pytest.approx(error * size / level.sigma**2, rel=1e-3)
