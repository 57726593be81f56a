"""The sampling loop: what it calls, what it depends on and what it does not."""

import threading
from dataclasses import replace

import pytest
import torch
from gaussian import Gaussian
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.condition import Condition
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import SPACINGS, NoiseSchedule
from tinyldm.diffusion.unipc import UniPC

COSINE, LINEAR = NoiseSchedule(), NoiseSchedule("linear")
SOLVERS = [
    DDPM(),
    DDPM("large"),
    DDIM(),
    DDIM(1.0),
    *(DPMSolver(k) for k in (1, 2, 3)),
    DPMSolver(2, sde=True),
    DPMSolver(3, sde=True),
    DPMSolver(2, form="eps"),
    DPMSolver(3, form="eps"),
    UniPC(2),
    UniPC(3),
    Heun(),
]


def wavy(x, t, condition):
    """A denoiser that is no truth, only a smooth function of all it is given."""
    told = 0 if condition is None else condition.vector.view(-1, 1, 1, 1)
    return torch.sin(2 * x + t.view(-1, 1, 1, 1) / 300 + told) * 0.8


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s != Heun()], ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_one_call_for_each_step(solver, spacing):
    calls, steps = [], []
    x = sample(
        lambda x, t, c: calls.append((t.dtype, t.device.type, len(t))) or wavy(x, t, c),
        (2, 1, 4, 4),
        LINEAR,
        solver,
        7,
        spacing=spacing,
        seeds=[0, 1],
        callback=lambda i, x, x0: steps.append((i, x.shape, x0.shape)),
    )
    assert calls == [(torch.float32, "cpu", 2)] * 7
    assert x.isfinite().all()
    assert x.dtype == torch.float32
    assert steps == [(i, x.shape, x.shape) for i in range(7)]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_pitfall_19_each_sample_has_its_own_noise(solver):
    def run(seeds):
        return sample(wavy, (len(seeds), 2, 4, 4), COSINE, solver, 8, seeds=seeds)

    together = run([0, 1, 2, 3])
    assert torch.equal(together, torch.cat([run([k]) for k in range(4)]))
    assert torch.equal(together[[2, 0]], run([2, 0]))
    assert not torch.equal(together[0], together[1])


def reader(x, t, condition):
    """A denoiser that is no truth and reads what the mask lets it see of the tokens, and the
    vector."""
    seen = (
        condition.tokens if condition.mask is None else condition.tokens * condition.mask[..., None]
    )
    told = seen.sum((1, 2)) / 3 + condition.vector.sum(1)
    return torch.tanh(x * told.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 500)


@given(
    solver=st.sampled_from(SOLVERS),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    scale=st.sampled_from([0.0, 1.0, 2.5]),
    rescale=st.sampled_from([0.0, 0.7]),
    steps=st.integers(1, 6),
    spacing=st.sampled_from(SPACINGS),
    data=st.data(),
)
def test_a_batch_is_its_samples_whatever_is_set(
    solver, lengths, scale, rescale, steps, spacing, data
):
    """In any order, any part of a batch: captions of other lengths, guidance and noise don't
    mix."""
    g = torch.Generator().manual_seed(0)
    rows = [
        Condition(torch.randn(1, n, 3, generator=g), vector=torch.randn(1, 2, generator=g))
        for n in lengths
    ]
    null = Condition(torch.zeros(1, 2, 3), torch.tensor([[True, False]]), torch.zeros(1, 2))

    def run(chosen):
        return sample(
            reader,
            (len(chosen), 2, 3, 3),
            LINEAR,
            solver,
            steps,
            spacing=spacing,
            seeds=[7 + k for k in chosen],
            condition=Condition.cat([rows[k] for k in chosen]),
            guidance=Guidance(scale, null, rescale),
        )

    together = run(range(len(rows)))
    some = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3))
    torch.testing.assert_close(run(some), together[some], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_pitfall_07_steps_are_float32_whatever_the_network_answers_in(solver):
    """A network in bfloat16 costs its own rounding and no more: x is never rounded."""
    seen = []

    def half(x, t, condition):
        assert x.dtype == torch.float32
        seen.append(x)
        return wavy(x, t, condition).bfloat16()

    x = sample(half, (2, 1, 4, 4), COSINE, solver, 8, seeds=[0, 1])
    again = sample(
        lambda x, t, c: half(x, t, c).float(), (2, 1, 4, 4), COSINE, solver, 8, seeds=[0, 1]
    )
    assert x.dtype == torch.float32
    assert torch.equal(x, again)
    assert all((x != x.bfloat16()).any() for x in seen)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_pitfall_05_no_hidden_state(solver):
    guidance = Guidance(
        2.0, Condition(vector=torch.zeros(1, 1)), interval=(0.1, 5.0), schedule=COSINE
    )

    def run(shape, wait=lambda *_: None, same=True):
        objects = (
            (COSINE, solver, guidance)
            if same
            else (
                NoiseSchedule(),
                replace(solver),
                Guidance(
                    2.0,
                    Condition(vector=torch.zeros(1, 1)),
                    interval=(0.1, 5.0),
                    schedule=NoiseSchedule(),
                ),
            )
        )
        return sample(
            wavy,
            shape,
            objects[0],
            objects[1],
            9,
            seeds=list(range(shape[0])),
            guidance=objects[2],
            condition=Condition(vector=torch.ones(shape[0], 1)),
            callback=wait,
        )

    shapes = [(2, 4, 8, 8), (1, 4, 6, 6)]
    in_turn = [run(shape) for shape in shapes]
    assert all(
        torch.equal(a, run(shape, same=False)) for a, shape in zip(in_turn, shapes, strict=True)
    )
    # two runs that take turns: neither goes on before the other has made the same step
    barrier, found = threading.Barrier(2, timeout=30), {}

    def task(shape):
        found[shape] = run(shape, lambda *_: barrier.wait())

    threads = [threading.Thread(target=task, args=(shape,)) for shape in shapes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, found[shape]) for a, shape in zip(in_turn, shapes, strict=True))


def test_the_default_noise_comes_from_torch_and_leaves_no_trace_with_seeds():
    torch.manual_seed(3)
    a, b = (sample(wavy, (2, 1, 2, 2), COSINE, steps=3) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(a, sample(wavy, (2, 1, 2, 2), COSINE, steps=3))
    assert not torch.equal(a, b)
    before = torch.get_rng_state()
    sample(wavy, (2, 1, 2, 2), COSINE, DDPM(), steps=3, seeds=[1, 2])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_pitfall_17_the_kind_of_prediction_makes_no_difference(solver):
    data = Gaussian.on(LINEAR, 0.4, 0.6)
    found = [
        sample(
            data.denoiser(kind),
            (3, 5),
            LINEAR,
            solver,
            12,
            prediction=kind,
            seeds=[0, 1, 2],
            dtype=torch.float64,
        )
        for kind in ("x0", "eps", "v")
    ]
    assert torch.allclose(found[0], found[1], atol=1e-9)
    assert torch.allclose(found[0], found[2], atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("bound", [1.0, 0.7])
def test_pitfall_17_clipping_makes_eps_fit(solver, bound):
    """A denoiser whose every x0 is cut to the same bounds is a denoiser that says these bounds."""
    sign = torch.tensor([[1.0, -1.0, 1.0]]) * bound
    seen = []
    wild = sample(
        lambda x, t, c: 40 * sign,
        (1, 3),
        LINEAR,
        solver,
        6,
        prediction="x0",
        seeds=[5],
        clip=bound,
        callback=lambda i, x, x0: seen.append((x, x0)),
    )
    tame = []
    sample(
        lambda x, t, c: sign,
        (1, 3),
        LINEAR,
        solver,
        6,
        prediction="x0",
        seeds=[5],
        callback=lambda i, x, x0: tame.append((x, x0)),
    )
    assert torch.equal(wild, sign)
    assert all(
        torch.equal(a, b)
        for pair in zip(seen, tame, strict=True)
        for a, b in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_pitfall_14_no_clipping_of_latents(solver):
    """The denoiser knows the latent, 5 deviations out, and what is noise: the latent comes back."""
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x0[0, 0, 0, 0], x0[1, 2, 3, 3] = 5.0, -4.0
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    for kind in ("x0", "v"):

        def oracle(x_t, t, condition, kind=kind):
            level = COSINE.level(t[0].item())
            return {"x0": x0, "v": (level.alpha * x_t - x0) / level.sigma}[kind]

        for n in (3, 20):
            x = sample(
                oracle, x0.shape, COSINE, solver, n, prediction=kind, noise=noise, seeds=[0, 1]
            )
            assert (x - x0).abs().max() < 1e-5


@pytest.mark.parametrize(
    "schedule", [COSINE, LINEAR, NoiseSchedule("linear", zero_snr=True)], ids=str
)
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_gaussian_data_is_sampled_as_gaussian_data(schedule, solver):
    data = Gaussian.on(schedule, -1.0, 0.5)
    steps = (
        250 if isinstance(solver, DDPM) or solver == DDIM(1.0) else 50
    )  # noise of first order takes more
    x = sample(data.denoiser("v"), (8, 4000), schedule, solver, steps, seeds=range(8))
    assert x.mean().item() == pytest.approx(-1.0, abs=0.02)
    assert x.std().item() == pytest.approx(0.5, rel=0.06)


def test_pitfall_15_eps_is_refused_at_zero_terminal_snr():
    with pytest.raises(ValueError, match="zero_snr"):
        sample(wavy, (1, 1, 2, 2), NoiseSchedule(zero_snr=True), prediction="eps")
    for solver in SOLVERS:
        x = sample(
            wavy, (1, 1, 2, 2), NoiseSchedule(zero_snr=True), solver, 9, prediction="v", seeds=[0]
        )
        assert x.isfinite().all()


def test_pitfall_25_the_loop_reads_nothing_back_from_the_device():
    """On the meta device there are no values: a run that gets through has never asked for one."""
    for solver in (DDPM(), DPMSolver(3), DPMSolver(2, sde=True)):
        guidance = Guidance(
            2.0, Condition(vector=torch.zeros(1, 1)), 0.5, interval=(0.1, 5.0), schedule=COSINE
        )
        x = sample(
            lambda x, t, c: x * c.vector.view(-1, 1, 1, 1),
            (2, 1, 4, 4),
            COSINE,
            solver,
            5,
            seeds=[0, 1],
            condition=Condition(vector=torch.zeros(2, 1)),
            guidance=guidance,
            clip=1.0,
            device="meta",
        )
        assert x.device.type == "meta"


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1001},
        {"seeds": [1]},
        {"condition": Condition(vector=torch.zeros(3, 1))},
        {"prediction": "epsilon"},
        {"spacing": "sparse"},
    ],
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(
        ValueError,
        match=r"1 and 1000 steps|seeds of|condition of|unknown prediction|unknown spacing",
    ):
        sample(wavy, (2, 1, 2, 2), COSINE, **options)
