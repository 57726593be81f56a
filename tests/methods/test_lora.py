"""Factors in the weights equal two small layers beside each adapted layer, which hooks add here."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from stand_ins import scrambled
from torch import nn

from docs.examples import dit
from tinyldm.condition import Condition
from tinyldm.errors import InputError
from tinyldm.methods.lora import LoRA, find_layers, published
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.training.ema import EMA
from tinyldm.training.muon import hidden_weights

SHAPE = UNetConfig(
    in_channels=3,
    out_channels=3,
    channels=(8, 16),
    attention=("self", "cross"),
    blocks=1,
    heads=2,
    groups=4,
    token_dim=6,
)
X, T = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 700.0])
CONDITION = Condition(torch.randn(2, 4, 6))


@pytest.fixture
def base():
    return scrambled(UNet(SHAPE)).eval()


def trained(base, layers="all", rank=2, alpha=3.0):
    """A LoRA whose factors are random, as if it had learned something."""
    return scrambled(LoRA(base, rank, alpha, find_layers(base, layers)))


def beside(base, lora):
    """The base with alpha / r times B(A(input)) added to each layer's output: published code."""
    network = deepcopy(base)
    for name in lora.layers:
        layer, factors = network.get_submodule(name), lora.unet.get_submodule(name)
        a, b = factors.lora_A.weight, factors.lora_B.weight

        def added(layer, inputs, output, a=a, b=b):
            (x,) = inputs
            if isinstance(layer, nn.Conv2d):
                small = nn.functional.conv2d(x, a, stride=layer.stride, padding=layer.padding)
                return output + lora.alpha / lora.rank * nn.functional.conv2d(small, b)
            return output + lora.alpha / lora.rank * (x @ a.T @ b.T)

        layer.register_forward_hook(added)
    return network


@pytest.mark.parametrize("layers", ["attention", "all", r"conv[12]$", "proj_in|downsamplers"])
def test_factors_in_the_weights_are_layers_beside_them(base, layers):
    lora = trained(base, layers)
    with torch.no_grad():
        expected, before = beside(base, lora)(X, T, CONDITION), base(X, T, CONDITION)
        torch.testing.assert_close(lora(X, T, CONDITION), expected, rtol=1e-4, atol=1e-5)
        assert (expected - before).abs().max() > 0.01
    kinds = {name: factors.lora_A.weight.shape[2:] for name, factors in named_factors(lora)}
    for name, kernel in kinds.items():  # A is k x k and B is 1 x 1
        assert kernel == base.get_submodule(name).weight.shape[2:]
        assert all(side == 1 for side in lora.unet.get_submodule(name).lora_B.weight.shape[2:])


def named_factors(lora):
    return [(name, lora.unet.get_submodule(name)) for name in lora.layers]


def test_at_the_start_it_is_the_base_bit_for_bit_and_a_step_leaves_the_base_alone(base):
    frozen = {name: weight.clone() for name, weight in base.state_dict().items()}
    before = base(X, T, CONDITION).detach()
    lora = LoRA(base, 2, None, find_layers(base, "all"))
    assert torch.equal(lora(X, T, CONDITION), before)
    optimizer = torch.optim.AdamW(lora.parameters(), lr=0.1)
    for _ in range(2):  # in the first step the gradient of A is zero, for B is
        lora(X, T, CONDITION).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.allclose(lora(X, T, CONDITION), before)
    assert all(torch.equal(frozen[name], w) for name, w in base.state_dict().items())
    assert all("lora_" in name for name in lora.state_dict())
    assert sum(1 for _ in lora.parameters()) == 2 * len(lora.layers)


def test_merged_is_the_network_that_was_trained(base):
    lora = trained(base)
    with torch.no_grad():
        before, adapted = base(X, T, CONDITION), lora(X, T, CONDITION)
        nothing = LoRA(deepcopy(base), 2, 3.0, lora.layers)
        nothing.load_state_dict(lora.state_dict())
        assert torch.equal(nothing.merge(scale=0)(X, T, CONDITION), before)
        half = deepcopy(base)
        for name, factors in named_factors(lora):
            weight = half.get_submodule(name).weight
            outer = torch.einsum(
                "or,r...->o...", factors.lora_B.weight.flatten(1), factors.lora_A.weight
            )
            weight += 0.5 * 3.0 / 2 * outer
        merged = LoRA(deepcopy(base), 2, 3.0, lora.layers)
        merged.load_state_dict(lora.state_dict())
        ours = merged.merge(scale=0.5)
        torch.testing.assert_close(
            ours(X, T, CONDITION), half(X, T, CONDITION), rtol=1e-6, atol=1e-6
        )
        whole = lora.merge()
        assert type(whole) is UNet
        assert torch.equal(whole(X, T, CONDITION), adapted)


def test_the_average_shares_the_base_and_averages_the_factors(base):
    lora = trained(base)
    ema = EMA(lora, 0.5, warmup=False)
    assert ema.network.base is base
    before = [p.clone() for p in lora.parameters()]
    scrambled_anew = [torch.ones_like(p) for p in before]
    with torch.no_grad():
        for p, new in zip(lora.parameters(), scrambled_anew, strict=True):
            p.copy_(new)
    ema.update(lora)
    for average, old in zip(ema.network.parameters(), before, strict=True):
        torch.testing.assert_close(average, (old + 1) / 2)


def test_the_base_moves_along_and_autocast_does_not_round_the_change(base):
    lora = trained(base).double()
    assert base.conv_in.weight.dtype == torch.float64
    lora.float()
    with torch.autocast("cpu", torch.bfloat16):
        within = lora.weights()
    assert all(torch.equal(within[name], w) for name, w in lora.weights().items())


def test_a_network_of_ones_own_muon_and_the_compiler(base):
    own = scrambled(dit.build(3, (8, 8), token_dim=6, vector_dim=None, map_channels=0)).eval()
    lora = trained(own, "attention")
    with torch.no_grad():
        torch.testing.assert_close(
            lora(X, T, CONDITION), beside(own, lora)(X, T, CONDITION), rtol=1e-4, atol=1e-5
        )
    hidden = hidden_weights(lora)
    assert 0 < len(hidden) <= len(list(lora.parameters()))
    lora = trained(base)
    compiled = torch.compile(lora, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, T, CONDITION), lora(X, T, CONDITION))
    compiled(X, T, CONDITION).square().mean().backward()
    assert all(p.grad is not None for p in lora.parameters())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("q_proj", r"--lora-layers q_proj: no layer has such a name; there are .*attn\*\.to_q"),
        ("(", r"--lora-layers \(: not a regular expression"),
    ],
)
def test_a_pattern_that_finds_nothing_is_told_with_what_there_is(base, asked, said):
    with pytest.raises(InputError, match=said) as caught:
        find_layers(base, asked)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_published_file_is_what_peft_adds_to_diffusers_unet(base):
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    from tinyldm.compat.native import from_native

    shape = replace(SHAPE, attention=("none", "cross"))
    base = scrambled(UNet(shape)).eval()
    lora = trained(base)
    theirs = diffusers.UNet2DConditionModel.from_config(dict(from_native(base.config).config))
    theirs.load_state_dict(base.state_dict())
    theirs.eval().load_lora_adapter(published(lora.state_dict(), 2, 3.0), prefix="unet")
    with torch.no_grad():
        expected = theirs(X, T, CONDITION.tokens).sample
        torch.testing.assert_close(lora(X, T, CONDITION), expected, rtol=1e-4, atol=1e-4)
