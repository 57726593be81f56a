"""The assignment kit: each exercise is graded by itself, and wrong answers are told why."""

import ast
import math
import os
import re
from importlib import import_module
from pathlib import Path

import fresh
import pytest
import torch
from torch import Tensor

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.diffusion import loss
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.kit.exercises import EXERCISES
from tinyldm.kit.grading.verdicts import CHECKS, verdict
from tinyldm.kit.writing import blanked, find
from tinyldm.nn import blocks

PACKAGE = Path(import_module("tinyldm").__file__).parent
NAMES = [exercise.name for exercise in EXERCISES]
OWN_DDIM, OWN_DDPM, OWN_NOISE = DDIM.step, DDPM.step, loss.draw_noise
OWN = {name: getattr(DPMSolver, name) for name in ("step", "bend")}


def blank(monkeypatch, exercise):
    """Let the functions of an exercise be as they are in the kit."""
    module = import_module(f"tinyldm.{exercise.module.removesuffix('.py').replace('/', '.')}")
    for name in exercise.functions:
        *places, last = name.split(".")
        place = module
        for part in places:
            place = getattr(place, part)

        def missing(*arguments, name=name, **more):
            raise NotImplementedError(f"{exercise.name}: {name}")

        is_method = callable(vars(place)[last])
        monkeypatch.setattr(place, last, missing if is_method else property(missing))


def test_every_exercise_has_a_check():
    assert list(CHECKS) == NAMES


@pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
def test_an_exercise_fails_by_itself_and_passes_by_itself(monkeypatch, exercise):
    with monkeypatch.context() as only:
        blank(only, exercise)
        told = {name: verdict(name) for name in CHECKS}
    assert told.pop(exercise.name).startswith("not written yet (")
    assert set(told.values()) == {""}
    with monkeypatch.context() as others:
        for other in EXERCISES:
            if other is not exercise:
                blank(others, other)
        assert verdict(exercise.name) == ""


# ---- what a student is told


def ddim_with_the_sigma_of_t(self, x, x0, eps, now, nxt, history=(), noise=None):
    return nxt.alpha * x0 + now.sigma * eps, ()


def ddim_that_adds_too_much(self, x, x0, eps, now, nxt, history=(), noise=None):
    if self.eta and noise is None:
        raise ValueError
    x_s = nxt.alpha * x0 + nxt.sigma * eps
    fresh = self.eta**2 * (1 - now.correlation(nxt) ** 2)
    return x_s + (nxt.sigma * fresh**0.5 * noise if self.eta else 0), ()


def ddpm_without_the_root(self, x, x0, eps, now, nxt, history=(), noise=None):
    rho = now.correlation(nxt)
    mean = nxt.alpha * (1 - rho**2) * x0 + rho * nxt.sigma / now.sigma * x
    return mean + nxt.sigma**2 * (1 - rho**2) * noise, ()


def ddpm_without_a_history(self, x, x0, eps, now, nxt, history=(), noise=None):
    return ddpm_without_the_root(self, x, x0, eps, now=now, nxt=nxt, noise=noise)[0]


def ddim_that_writes_into_x0(self, x, x0, eps, now, nxt, history=(), noise=None):
    x0 *= nxt.alpha
    return x0 + nxt.sigma * eps, ()


def ddim_with_alpha_bar(self, x, x0, eps, now, nxt, history=(), noise=None):
    alpha_bar = nxt.alpha**2
    return alpha_bar * x0 + (1 - alpha_bar**2) ** 0.5 * eps, ()


def ddim_with_squares(self, x, x0, eps, now, nxt, history=(), noise=None):
    return nxt.alpha**2 * x0 + nxt.sigma**2 * eps, ()


def ddim_with_its_own_noise(self, x, x0, eps, now, nxt, history=(), noise=None):
    noise = None if noise is None else torch.randn_like(x)
    return OWN_DDIM(self, x, x0, eps, now=now, nxt=nxt, noise=noise)


def ddpm_with_its_own_noise(self, x, x0, eps, now, nxt, history=(), noise=None):
    return OWN_DDPM(self, x, x0, eps, now=now, nxt=nxt, noise=torch.randn_like(x))


def ddpm_that_adds_x_t(self, x, x0, eps, now, nxt, history=(), noise=None):
    rho = now.correlation(nxt)
    mean = nxt.alpha * x0 + rho * nxt.sigma / now.sigma * x
    return mean + nxt.sigma * (1 - rho**2) ** 0.5 * noise, ()


def ddim_with_a_typo(self, x, x0, eps, now, nxt, history=(), noise=None):
    return nxt.alfa * x0 + nxt.sigma * eps, ()


def guidance_beyond(self, denoiser):
    def guided(x, t, condition):
        null = denoiser(x, t, self.null.expand(len(x)))
        conditional = denoiser(x, t, condition)
        return conditional + self.scale * (conditional - null)

    return guided


def guidance_that_always_calls_twice(self, denoiser):
    def guided(x, t, condition):
        null = denoiser(x, t, self.null.expand(len(x)))
        return null + self.scale * (denoiser(x, t, condition) - null)

    return guided


def dpm_of_first_order(self, m_0, now, nxt, others):
    return torch.zeros_like(m_0)


def dpm_with_the_wrong_sign(self, m_0, now, nxt, others):
    return -OWN["bend"](self, m_0, now, nxt, others)


def dpm_without_history(self, x, x0, eps, now, nxt, history=(), noise=None):
    return OWN["step"](self, x, x0, eps, now=now, nxt=nxt, history=history)[0], ()


def noise_with_squares(x0, schedule, generator=None, t=None, eps=None):
    level = schedule.level(t).like(x0)
    return loss.Noised(x0, eps, t, level, level.alpha**2 * x0 + level.sigma**2 * eps)


def noise_in_a_tuple(x0, schedule, generator=None, t=None, eps=None):
    level = schedule.level(t).like(x0)
    return level.alpha * x0 + level.sigma * eps, eps, t


def noise_that_is_always_drawn(x0, schedule, generator=None, t=None, eps=None):
    return OWN_NOISE(x0, schedule, generator, t=t)


def timesteps_that_are_always_drawn(x0, schedule, generator=None, t=None, eps=None):
    return OWN_NOISE(x0, schedule, generator, eps=eps)


def error_as_a_sum(predicted, noised, prediction, schedule, snr_gamma=None):
    wanted = loss.target(noised.x0, noised.eps, noised.level, prediction)
    return (predicted - wanted).square().flatten(1).sum(1)


def error_of_eps(predicted, noised, prediction, schedule, snr_gamma=None):
    return (predicted - noised.eps).square().flatten(1).mean(1)


def error_of_the_batch(predicted, noised, prediction, schedule, snr_gamma=None):
    return (predicted - noised.eps).square().mean()


def attention_without_root(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def attention_without_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def attention_times_the_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores * mask).softmax(-1) @ v


def heads_that_are_not_turned(self, x, context=None, mask=None):
    source = x if context is None else context
    q, k, v = (
        self._split(f(y)) for f, y in ((self.to_q, x), (self.to_k, source), (self.to_v, source))
    )
    return self.to_out(blocks._attend(q, k, v, mask).reshape(x.shape))


def guidance_in_a_tuple(self, denoiser):
    return lambda x, t, condition: (denoiser(x, t, condition), None)


def error_of_a_word(predicted, noised, prediction, schedule, snr_gamma=None):
    return noised.target


def heads_that_ignore_the_mask(self, x, context=None, mask=None):
    source = x if context is None else context
    q, k, v = (
        self._split(f(y)) for f, y in ((self.to_q, x), (self.to_k, source), (self.to_v, source))
    )
    out = blocks._attend(q, k, v, None)
    return self.to_out(out.transpose(1, 2).flatten(2))


WRONG = [
    (
        "ddim",
        DDIM,
        "step",
        ddim_with_the_sigma_of_t,
        "your x_s has too much variance: 1.42, expected 1.00; it looks as if you took sigma at t",
    ),
    ("ddim", DDIM, "step", ddim_that_adds_too_much, "too much variance.*none of eps is taken away"),
    ("ddpm", DDPM, "step", ddpm_without_the_root, "too little variance.*not the root"),
    ("guidance", Guidance, "__call__", guidance_beyond, "you go beyond the conditional prediction"),
    (
        "guidance",
        Guidance,
        "__call__",
        guidance_that_always_calls_twice,
        "you call the network for 8 rows, expected 4",
    ),
    ("dpm-solver", DPMSolver, "bend", dpm_of_first_order, "divide your error by 2.0, expected"),
    ("dpm-solver", DPMSolver, "bend", dpm_with_the_wrong_sign, "expected about 4"),
    ("dpm-solver", DPMSolver, "step", dpm_without_history, "your history has 0 entries"),
    ("loss", loss, "draw_noise", noise_with_squares, "alpha and sigma are squared"),
    ("loss", loss, "prediction_error", error_as_a_sum, "you took the sum over a sample"),
    ("loss", loss, "prediction_error", error_of_eps, "the target is eps, whatever is predicted"),
    ("loss", loss, "prediction_error", error_of_the_batch, r"has shape \(\), expected \(4,\)"),
    ("attention", blocks, "_attend", attention_without_root, "not divided by sqrt"),
    ("attention", blocks, "_attend", attention_without_mask, "the mask does nothing"),
    (
        "attention",
        blocks.Attention,
        "forward",
        heads_that_ignore_the_mask,
        "the mask does not get to _attend",
    ),
    (
        "schedule",
        NoiseSchedule,
        "alpha_bar",
        property(lambda self: (1 - self.betas).cumprod(0).sqrt()),
        "it is the root, alpha",
    ),
    (
        "schedule",
        NoiseSchedule,
        "alpha_bar",
        property(lambda self: (1 - self.betas).cumprod(0)),
        "zero_snr does nothing",
    ),
    ("ddim", DDIM, "step", lambda self, x, x0, eps, now, nxt: None, "returns nothing, expected"),
    ("ddpm", DDPM, "step", ddpm_without_a_history, "returns a Tensor, expected the pair"),
    ("ddim", DDIM, "step", ddim_that_writes_into_x0, "your step changes x0, which it was given"),
    (
        "ddim",
        DDIM,
        "step",
        ddim_with_a_typo,
        "AttributeError: 'Level' object has no attribute 'alfa'",
    ),
    ("ddim", DDIM, "step", ddim_with_alpha_bar, "alpha_bar, which is alpha.2, stands for alpha"),
    ("ddim", DDIM, "step", ddim_with_squares, "alpha and sigma are squared"),
    ("ddim", DDIM, "step", ddim_with_its_own_noise, "another one at each call"),
    ("ddpm", DDPM, "step", ddpm_with_its_own_noise, "another one at each call"),
    ("ddpm", DDPM, "step", ddpm_that_adds_x_t, "too much variance.*none of x0 is taken away"),
    ("loss", loss, "draw_noise", noise_in_a_tuple, "returns a tuple, expected a Noised"),
    ("loss", loss, "draw_noise", noise_that_is_always_drawn, "does not take the eps"),
    ("loss", loss, "draw_noise", timesteps_that_are_always_drawn, "does not take the t that"),
    ("loss", loss, "prediction_error", error_of_a_word, "AttributeError.*no attribute 'target'"),
    ("guidance", Guidance, "__call__", guidance_in_a_tuple, "is a tuple, expected a tensor"),
    ("attention", blocks, "_attend", attention_times_the_mask, "multiplied by the mask"),
    (
        "attention",
        blocks.Attention,
        "forward",
        heads_that_are_not_turned,
        "is reshaped as it is",
    ),
]


@pytest.mark.parametrize(
    ("name", "place", "function", "wrong", "told"),
    WRONG,
    ids=[f"{w[0]}-{w[4][:30]}" for w in WRONG],
)
def test_a_wrong_answer_is_told_what_is_wrong(monkeypatch, name, place, function, wrong, told):
    monkeypatch.setattr(place, function, wrong)
    found = verdict(name)
    assert "\n" not in found
    assert re.search(told, found), found
    assert all(verdict(other) == "" for other in NAMES if other != name)


# ---- the folder that is written


@pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
def test_a_blank_keeps_signature_and_docstring_alone(exercise):
    text = (PACKAGE / exercise.module).read_text(encoding="utf-8")
    made = blanked(text, exercise)
    for name in exercise.functions:
        before, after = find(text, name), find(made, name)
        assert ast.dump(before.args) == ast.dump(after.args)
        assert ast.get_docstring(before) == ast.get_docstring(after)
        (only,) = [node for node in after.body if not ast.unparse(node).startswith(("'", '"'))]
        assert isinstance(only, ast.Raise)
        written = ast.get_source_segment(made, after)
        for node in before.body[1:] if ast.get_docstring(before) else before.body:
            assert ast.get_source_segment(text, node) not in written
    untouched = [line for line in text.splitlines() if line.startswith(("class ", "def ", "@"))]
    assert [line for line in made.splitlines() if line.startswith(("class ", "def ", "@"))] == (
        untouched
    )


def grade(folder, *names):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return fresh.run(["grade.py", *names], folder, {**environment, "OMP_NUM_THREADS": "1"})


def test_the_kit_from_blank_to_right(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dispatch(COMMANDS, ["exercise", "homework"]) == 0
    assert "7 exercises" in capsys.readouterr().out
    homework = tmp_path / "homework"
    assert not list(homework.glob("tinyldm/kit")) + list(homework.rglob("__pycache__"))
    page = (homework / "README.md").read_text()
    for exercise in EXERCISES:
        for name in exercise.functions:
            text = (homework / "tinyldm" / exercise.module).read_text()
            line = find(text, name).lineno
            assert f"`{name}` in `tinyldm/{exercise.module}`, line {line}" in page
            assert name.rpartition(".")[2] in text.splitlines()[line - 1]
    done = grade(homework)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("not written yet") == 7
    assert "0 of 7 right" in done.stdout

    for exercise in EXERCISES:  # the solution
        text = (PACKAGE / exercise.module).read_text()
        (homework / "tinyldm" / exercise.module).write_text(text)
    done = grade(homework)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 of 7 right" in done.stdout


@pytest.mark.slow
def test_a_kit_calls_its_own_stories(tmp_path, monkeypatch, capsys):
    """Even where an installed library has put its command on the path."""
    monkeypatch.chdir(tmp_path)
    assert dispatch(COMMANDS, ["exercise", "homework", "--only", "ddim"]) == 0
    (tmp_path / "tinyldm").write_text("")
    (tmp_path / "tinyldm").chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    for call in (["sample.py"], ["-m", "tinyldm", "sample"]):
        told = fresh.run([*call, "--help"], tmp_path / "homework", environment)
        assert (told.returncode, told.stderr) == (0, "")
        assert "python sample.py --steps 50" in told.stdout
        assert "tinyldm sample --" not in told.stdout


def test_some_exercises_and_a_folder_that_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dispatch(COMMANDS, ["exercise", "a/b", "--only", "ddim", "ddpm"]) == 0
    page = (tmp_path / "a" / "b" / "README.md").read_text()
    assert "(`ddim`)" in page
    assert "(`loss`)" not in page
    kept = (tmp_path / "a" / "b" / "tinyldm" / "diffusion" / "loss.py").read_bytes()
    assert kept == (PACKAGE / "diffusion" / "loss.py").read_bytes()
    capsys.readouterr()
    assert dispatch(COMMANDS, ["exercise", "a/b"]) == 2
    assert "a/b: exists already; expected a new folder" in capsys.readouterr().err
    assert dispatch(COMMANDS, ["exercise", "c", "--only", "ddmi"]) == 2
    assert "did you mean dd" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
