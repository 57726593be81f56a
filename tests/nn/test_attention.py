import math

import pytest
import torch

from tinyldm.nn.blocks import GEGLU, Attention, SelfAttention, Transformer


def naive(module, x, context, mask):
    """Attention as sums over i (query), j (key), h (head), d (channel of a head)."""
    b, n, c = x.shape
    heads = module.heads
    q, k, v = (
        f(y).reshape(b, -1, heads, c // heads)
        for f, y in ((module.to_q, x), (module.to_k, context), (module.to_v, context))
    )
    weight = torch.einsum("bihd,bjhd->bhij", q, k).div(math.sqrt(c // heads)).exp()
    if mask is not None:
        weight = weight * mask.reshape(b, 1, 1, -1)
    weight = weight / weight.sum(-1, keepdim=True)
    out = torch.einsum("bhij,bjhd->bihd", weight, v).reshape(b, n, c)
    return out @ module.to_out[0].weight.T + module.to_out[0].bias


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_against_einsum(heads, masked):
    torch.manual_seed(0)
    module = Attention(32, heads, context_width=12)
    x, context = torch.randn(3, 9, 32), torch.randn(3, 5, 12)
    mask = (
        torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]]).bool() if masked else None
    )
    got = module(x, context, mask[:, None, None] if masked else None)
    torch.testing.assert_close(got, naive(module, x, context, mask), rtol=1e-5, atol=1e-5)


def test_self_attention_knows_no_order():
    """Permuting the positions permutes the output: nothing else tells them apart."""
    torch.manual_seed(0)
    module = SelfAttention(32, 4, 8, 1e-5)
    torch.nn.init.normal_(module.to_out[0].weight)
    x = torch.randn(2, 32, 3, 4)
    order = torch.randperm(12)
    permuted = x.flatten(2)[:, :, order].reshape(x.shape)
    expected = module(x).flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(module(permuted), expected, rtol=1e-5, atol=1e-5)


def test_both_projections_are_the_same_map():
    torch.manual_seed(0)
    conv, linear = (Transformer(32, 4, 8, 1, 8, linear=linear) for linear in (False, True))
    state = {k: torch.randn_like(v) * 0.2 for k, v in conv.state_dict().items()}
    conv.load_state_dict(state)
    linear.load_state_dict({k: v.flatten(1) if v.ndim == 4 else v for k, v in state.items()})
    x, tokens = torch.randn(2, 32, 3, 5), torch.randn(2, 6, 8)
    torch.testing.assert_close(conv(x, tokens, None), linear(x, tokens, None), rtol=1e-4, atol=1e-4)


def test_geglu():
    module = GEGLU(2, 1)
    with torch.no_grad():
        module.proj.weight.copy_(torch.eye(2))
        module.proj.bias.zero_()
    x = torch.tensor([[3.0, 0.7]])
    expected = 3.0 * 0.7 * 0.5 * (1 + math.erf(0.7 / math.sqrt(2)))
    assert module(x).item() == pytest.approx(expected, rel=1e-6)
