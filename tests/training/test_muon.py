"""Muon against the singular value decomposition, torch's own Muon, and what must not matter."""

import json
import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tinyldm.nn.unet import UNet
from tinyldm.processes import ALONE, joined
from tinyldm.training.checkpoint import read_config
from tinyldm.training.muon import (
    QUINTIC,
    Muon,
    hidden_weights,
    multiplications,
    orthogonalised,
    shared_out,
)
from tinyldm.training.presets import PRESETS

SHAPES = [(8, 8), (6, 20), (20, 6), (1, 5), (32, 9 * 32)]
LEAST, MOST = 0.68, 1.21  # what the quintic makes of singular values that are not too small


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(n, seed):
    return torch.linalg.qr(random(n, n, seed=seed))[0]


def with_singular_values(values, seed=0):
    """A square matrix with these singular values, and the rotations on both sides of them."""
    n = len(values)
    u, v = rotation(n, seed), rotation(n, seed + 1)
    return u @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ v.T, u, v


@pytest.mark.parametrize("shape", SHAPES)
def test_well_conditioned_matrices_become_nearly_orthogonal(shape):
    """U V^T times singular values in the quintic's band, in the basis of the decomposition."""
    u, _, vh = torch.linalg.svd(random(*shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.2, 1, min(shape), dtype=torch.float64)) @ vh
    (update,) = orthogonalised([matrix], iterations=4)
    core = u.T @ update @ vh.T
    values = core.diagonal()
    torch.testing.assert_close(core, torch.diag(values), atol=1e-9, rtol=0)
    assert values.min() > LEAST
    assert values.max() < MOST


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_the_gram_matrix_stands_for_the_iteration_on_the_matrix_itself(iterations):
    """X <- a X + b X X^T X + c (X X^T)^2 X, from X over its bound, as Jordan writes it."""
    matrix = random(7, 30)
    s = torch.linalg.svdvals(matrix)
    x = matrix / (s**8).sum() ** (1 / 8)
    a, b, c = QUINTIC
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    torch.testing.assert_close(orthogonalised([matrix], iterations)[0], x, atol=1e-9, rtol=0)


@pytest.mark.parametrize("least", [1e-1, 1e-2, 3e-3])
def test_float32_is_enough_for_small_singular_values(least):
    """The Gram matrix squares the condition number; the result stays that of float64."""
    matrix, u, v = with_singular_values(torch.logspace(0, torch.tensor(least).log10().item(), 64))
    (update,) = orthogonalised([matrix.float()], iterations=4)
    (exact,) = orthogonalised([matrix], iterations=4)
    assert (update - exact).norm() < 2e-3 * exact.norm()
    values = (u.T @ exact @ v).diagonal()
    assert values.max() < MOST
    assert values.min() > (LEAST if least > 5e-3 else 0.2)


def test_rotations_and_the_size_of_the_gradient_pass_through():
    x, left, right = random(5, 12), rotation(5, 1), rotation(12, 2)
    (plain,) = orthogonalised([x], 4)
    (rotated,) = orthogonalised([1e-6 * left @ x @ right], 4)
    torch.testing.assert_close(rotated, left @ plain @ right, atol=1e-9, rtol=0)
    (transposed,) = orthogonalised([x.T], 4)
    torch.testing.assert_close(transposed, plain.T, atol=1e-9, rtol=0)


def test_matrices_of_one_side_go_through_together_and_do_not_meet():
    matrices = [random(*shape, seed=k) for k, shape in enumerate([(6, 9), (12, 6), (4, 4), (6, 6)])]
    for matrix, update in zip(matrices, orthogonalised(matrices, 4), strict=True):
        torch.testing.assert_close(update, orthogonalised([matrix], 4)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e12])
def test_gradients_of_any_size_are_finite(size):
    matrix = size * random(6, 10, dtype=torch.float32)
    (update,) = orthogonalised([matrix], 4)
    assert update.isfinite().all()
    if size == 0:
        assert not update.any()


@pytest.mark.parametrize("shape", [(24, 24), (64, 16), (16, 64)])
def test_ten_steps_go_where_those_of_torch_go(shape):
    """torch.optim.Muon: the same momentum, scale and decay; it iterates in bfloat16."""
    start = random(*shape, seed=9, dtype=torch.float32)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    how = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = [Muon([ours], **how), torch.optim.Muon([theirs], **how)]
    for k in range(10):
        gradient = random(*shape, seed=k, dtype=torch.float32)
        for p, optimizer in zip((ours, theirs), optimizers, strict=True):
            p.grad = gradient.clone()
            optimizer.step()
    a, b = ours.detach() - start, theirs.detach() - start
    assert (a * b).sum() / a.norm() / b.norm() > 0.97
    assert a.norm().item() == pytest.approx(b.norm().item(), rel=0.1)


def test_a_convolution_is_the_matrix_that_multiplies_patches():
    weight, gradient = random(6, 3, 2, 2, seed=1), random(6, 3, 2, 2, seed=2)
    as_filter, as_matrix = nn.Parameter(weight.clone()), nn.Parameter(weight.flatten(1).clone())
    as_filter.grad, as_matrix.grad = gradient, gradient.flatten(1)
    Muon([as_filter], lr=0.1).step()
    Muon([as_matrix], lr=0.1).step()
    torch.testing.assert_close(as_filter.flatten(1), as_matrix, atol=1e-12, rtol=0)
    assert (as_filter.detach() - weight).norm().item() == pytest.approx(0.1 * 6**0.5, rel=0.2)


def test_all_directions_of_an_ill_conditioned_problem_are_learned_alike():
    """Least squares with inputs of a condition number of 100: far below gradient descent."""
    inputs = torch.diag(torch.logspace(0, -2, 16, dtype=torch.float64))
    wanted = random(16, 16)

    def left_over(make, rates):
        ends = []
        for rate in rates:
            w = nn.Parameter(torch.zeros(16, 16, dtype=torch.float64))
            optimizer = make([w], rate)
            for k in range(100):
                optimizer.param_groups[0]["lr"] = rate * (1 - k / 100)
                optimizer.zero_grad()
                ((w - wanted) @ inputs).square().sum().backward()
                optimizer.step()
            ends.append((w.detach() - wanted).norm() / wanted.norm())
        return min(ends)

    muon = left_over(lambda p, lr: Muon(p, lr=lr), [0.1, 0.3])
    descent = left_over(
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), [0.01, 0.03, 0.1, 0.3]
    )
    assert muon < 0.3
    assert descent > 0.5


def test_hidden_layers_of_the_unet():
    """Not the first and the last layer, nor what reads the time, nor vectors."""
    network = UNet(replace(PRESETS["toy"], channels=(16, 16, 32)))
    hidden = set(hidden_weights(network))
    names = {name for name, p in network.named_parameters() if p in hidden}
    left = {name for name, p in network.named_parameters() if p not in hidden and p.ndim > 1}
    assert {"conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"} <= left
    assert all("emb" in name for name in left - {"conv_in.weight", "conv_out.weight"})
    assert "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight" in names
    assert "down_blocks.0.downsamplers.0.conv.weight" in names
    assert all(name.endswith(".weight") for name in names)


def test_a_run_that_does_not_name_its_optimizer_had_adamw(tmp_path):
    config = {"format": 1, "settings": {"lr": 1e-3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = read_config(tmp_path)["settings"]
    assert settings == {
        **{"optimizer": "adamw", "t_sampling": "uniform", "post_hoc_ema": False},
        "loss_weights": "plain",
        "lr": 1e-3,
    }


# ---- several processes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 4])
def test_the_work_of_a_matrix_is_what_torch_counts(shape, iterations):
    with FlopCounterMode(display=False) as counter:
        orthogonalised([random(*shape)], iterations)
    assert counter.get_total_flops() == 2 * multiplications(random(*shape), iterations)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_the_matrices_of_the_toy_network_evenly(world):
    with torch.device("meta"):
        weights = [weight.flatten(1) for weight in hidden_weights(UNet(PRESETS["toy"]))]
    shares = shared_out(weights, world, 4)
    assert sorted(k for share in shares for k in share) == list(range(len(weights)))
    loads = [sum(multiplications(weights[k], 4) for k in share) for share in shares]
    assert max(loads) < 1.02 * sum(loads) / world


def trained(processes, shapes):
    """The weights after three steps, and the FLOPs of these in this process."""
    torch.set_num_threads(1)
    weights = [nn.Parameter(random(*s, seed=9, dtype=torch.float32)) for s in shapes]
    optimizer = Muon(weights, lr=0.1, weight_decay=0.1, processes=processes)
    with FlopCounterMode(display=False) as counter:
        for step in range(3):
            for k, p in enumerate(weights):
                p.grad = random(*p.shape, seed=100 * step + k, dtype=torch.float32)
            optimizer.step()
    return [p.detach().numpy().tobytes() for p in weights], counter.get_total_flops()


MANY = [(24, 24), (48, 16), (16, 3, 3, 3), (24, 6, 2, 2), (24, 40), (8, 60), (16, 4, 3, 3)]
WORLDS = {"many": MANY, "one for two": [(12, 20)]}


def _one_of_two(rank, port, results):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined(torch.device("cpu")) as processes:
        for name, shapes in WORLDS.items():
            results[rank, name] = trained(processes, shapes)
            results["alone", name] = trained(ALONE, shapes)


@pytest.mark.slow
def test_two_processes_share_the_work_and_have_the_weights_of_one_bit_for_bit():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(_one_of_two, (port, shared), nprocs=2)
        results = dict(shared)
    for name in WORLDS:
        (weights, flops), (first, of_first), (second, of_second) = (
            results[who, name] for who in ("alone", 0, 1)
        )
        assert first == second == weights
        assert of_first + of_second == flops
    (_, flops), (_, of_first) = results["alone", "many"], results[0, "many"]
    assert 0.4 * flops < of_first < 0.6 * flops
