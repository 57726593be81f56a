import re
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyldm import Condition, Guidance, NoiseSchedule, UNet, UNetConfig, sample, training_loss
from tinyldm.compat.network import PublishedConfig, PublishedUNet
from tinyldm.training.presets import PRESETS

TINY = UNetConfig(
    channels=(32, 64), attention=("none", "cross"), blocks=1, heads=4, token_dim=8, groups=8
)
KINDS = {
    "cross": TINY,
    "self": replace(TINY, attention="self", middle="self"),
    "plain": replace(TINY, attention="none", middle="none", middle_blocks=0, blocks=(1, 2)),
    "adagn": replace(TINY, scale_shift=True, linear_projection=True, depth=2),
    "vector": replace(TINY, vector_dim=5),
    "classes": replace(TINY, classes=5),
    "maps": replace(TINY, map_channels=3, in_channels=2, out_channels=6),
    "fourier": PublishedConfig(**asdict(TINY) | dict(time_embedding="fourier", time_dim=20)),
}
# the ends of residual branches and the output, zero at the start by design (2006.11239, 2112.10752)
ZERO = re.compile(
    r"(\.conv2|^conv_out|attentions\.\d+\.proj_out|attentions\.\d+\.to_out\.0)\.(weight|bias)$"
)


def build(config, awake=True, seed=0):
    """A network in eval mode; awake: with the parameters that start at zero set to something
    else."""
    torch.manual_seed(seed)
    kind = PublishedUNet if isinstance(config, PublishedConfig) else UNet
    network = kind(config).eval()
    for name, p in network.named_parameters():
        if awake and ZERO.search(name):
            torch.nn.init.normal_(p, std=0.1)
    return network


def inputs(config, b=3, hw=(8, 8), n=5):
    """Random x, t and a condition with everything that the network reads."""
    parts = {}
    if config.reads_tokens:
        parts["tokens"] = torch.randn(b, n, config.token_dim)
        parts["mask"] = torch.arange(n) < torch.randint(1, n, (b, 1))
    if config.vector_width:
        parts["vector"] = torch.randn(b, config.vector_width)
    if config.map_channels:
        parts["maps"] = torch.randn(b, config.map_channels, *hw)
    return (
        torch.randn(b, config.in_channels, *hw),
        torch.rand(b) * 999,
        Condition(**parts) if parts else None,
    )


AWAKE = build(TINY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hw", [(8, 8), (7, 5), (1, 1), (2, 9)])
def test_shapes(kind, hw):
    config = KINDS[kind]
    x, t, condition = inputs(config, hw=hw)
    out = build(config)(x, t, condition)
    assert out.shape == (3, config.out_channels, *hw)
    assert out.dtype == x.dtype
    assert out.isfinite().all()


looks = st.sampled_from(["none", "self", "cross"])


@settings(max_examples=40)
@given(
    levels=st.lists(
        st.tuples(st.sampled_from([8, 16]), looks, st.integers(1, 2)), min_size=1, max_size=4
    ),
    middle=looks,
    scale_shift=st.booleans(),
    hw=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    b=st.integers(1, 3),
    n=st.integers(2, 4),
)
def test_any_network_takes_any_size_and_each_sample_by_itself(
    levels, middle, scale_shift, hw, b, n
):
    """A sample's answer has its size, and does not depend on the rest of the batch."""
    channels, attention, blocks = zip(*levels, strict=True)
    config = UNetConfig(
        channels=channels,
        attention=attention,
        blocks=blocks,
        middle=middle,
        heads=2,
        groups=4,
        token_dim=6,
        scale_shift=scale_shift,
    )
    network, (x, t, condition) = build(config), inputs(config, b, hw, n)
    with torch.no_grad():
        out = network(x, t, condition)
        alone = network(x[-1:], t[-1:], condition[[b - 1]] if condition else None)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert out.std() > 0
    torch.testing.assert_close(alone, out[-1:], rtol=1e-4, atol=1e-4 * out.std().item())


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_is_read(kind):
    config = KINDS[kind]
    network, (x, t, condition) = build(config), inputs(config)
    t.requires_grad_(), x.requires_grad_()
    leaves = {
        name: p.requires_grad_()
        for name, p in (condition.parts() if condition else {}).items()
        if name != "mask"
    }
    network(x, t, condition).square().sum().backward()
    for name, leaf in {"x": x, "t": t, **leaves}.items():
        assert (
            (leaf.grad.flatten(1).abs().sum(1) > 0).all()
            if leaf.ndim > 1
            else (leaf.grad != 0).all()
        ), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_called_through_its_forward(kind):
    """So that hooks, adapters and torch.compile see each layer that has parameters of its own."""
    config = KINDS[kind]
    network, (x, t, condition) = build(config), inputs(config)
    seen, handles = set(), []
    for name, module in network.named_modules():

        def enter(module, args, output, name=name):
            seen.add(name)

        handles.append(module.register_forward_hook(enter))
    with torch.no_grad():
        network(x, t, condition)
    owners = {
        name for name, module in network.named_modules() if list(module.parameters(recurse=False))
    }
    assert len(owners) > 10
    assert owners <= seen


@pytest.mark.parametrize("linear", [False, True])
def test_a_hook_on_a_layer_changes_what_is_computed(linear):
    """As an adapter would: what the layer returns is what the network goes on with."""
    network = build(replace(TINY, classes=5, linear_projection=linear))
    x, t, condition = inputs(network.config)
    transformer = network.down_blocks[1].attentions[0]
    feed_forward = transformer.transformer_blocks[0].ff
    layers = [transformer.proj_in, transformer.proj_out, feed_forward, network.class_embedding]
    with torch.no_grad():
        plain = network(x, t, condition)
        for layer in layers:
            handle = layer.register_forward_hook(lambda module, args, output: output + 0.5)
            assert (network(x, t, condition) - plain).abs().max() > 1e-3
            handle.remove()
        assert torch.equal(network(x, t, condition), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_invariance(kind):
    config = KINDS[kind]
    network, (x, t, condition) = build(config), inputs(config)
    with torch.no_grad():
        together = network(x, t, condition)
        for k in range(3):
            alone = network(x[k : k + 1], t[k : k + 1], condition[[k]] if condition else None)
            torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-5)


def test_scalar_t():
    network, (x, _, condition) = build(TINY), inputs(TINY)
    with torch.no_grad():
        expected = network(x, torch.full((3,), 40.0), condition)
        for t in (40, 40.0, torch.tensor(40), torch.tensor([40.0])):
            assert torch.equal(network(x, t, condition), expected)


def test_pitfall_12_masked_tokens_change_nothing():
    network, (x, t, condition) = build(TINY), inputs(TINY)
    for junk in (1e4, float("inf"), float("nan")):
        spoilt = replace(
            condition, tokens=condition.tokens.masked_fill(~condition.mask[:, :, None], junk)
        )
        with torch.no_grad():
            assert torch.equal(network(x, t, condition), network(x, t, spoilt))
            cut = Condition(
                condition.tokens[:, :4], condition.mask[:, :4]
            )  # the last is masked in every row
            torch.testing.assert_close(
                network(x, t, cut), network(x, t, condition), rtol=1e-4, atol=1e-5
            )


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=3, max_size=3),
    st.integers(1, 4),
)
def test_pitfall_12_only_the_tokens_that_the_mask_keeps_count(mask, extra):
    """Junk, a cut, another order or more padding: where the kept tokens are the same, so is the
    answer."""
    torch.manual_seed(0)
    network, (x, t, condition), mask = AWAKE, inputs(TINY), torch.tensor(mask)
    with torch.no_grad():
        expected = network(x, t, Condition(condition.tokens, mask))
        junk = condition.tokens.masked_fill(~mask[:, :, None], 1e4)
        assert torch.equal(network(x, t, Condition(junk, mask)), expected)
        longer = network(x, t, Condition(junk, mask).padded(5 + extra))
        for k in range(3):
            kept = Condition(condition.tokens[k : k + 1, mask[k]].flip(1))
            for other in (network(x[k : k + 1], t[k : k + 1], kept), longer[k : k + 1]):
                torch.testing.assert_close(other, expected[k : k + 1], rtol=1e-4, atol=1e-5)


def test_a_batch_of_captions_is_its_captions():
    """With the network, guidance and a sampler: each picture is what its caption gives alone,
    unpadded."""
    captions = [
        Condition(torch.randn(1, n, 8, generator=torch.Generator().manual_seed(n)))
        for n in (2, 5, 1)
    ]
    guidance = Guidance(3.0, Condition(torch.zeros(1, 2, 8)))

    def run(chosen):
        return sample(
            AWAKE,
            (len(chosen), 4, 7, 6),
            NoiseSchedule(),
            steps=4,
            seeds=chosen,
            guidance=guidance,
            condition=Condition.cat([captions[k] for k in chosen]),
        )

    together = run([0, 1, 2])
    for chosen in ([0], [1], [2], [2, 0]):
        torch.testing.assert_close(run(chosen), together[chosen], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pitfall_12_no_valid_token(dtype):
    """Finite forward and backward, and the tokens, whatever they are, don't matter."""
    network, (x, t, condition) = build(TINY).to(dtype), inputs(TINY)
    mask = condition.mask.clone()
    mask[1] = False
    tokens = condition.tokens.masked_fill(~mask[:, :, None], 1e4).requires_grad_()
    out = network(x, t, Condition(tokens, mask))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert tokens.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert (tokens.grad[1] == 0).all()
    assert (tokens.grad[0][mask[0]] != 0).any()
    other = network(x, t, Condition(torch.randn(3, 5, 8), mask))
    assert torch.equal(out[1], other[1])
    assert not torch.equal(out[0], other[0])


def test_pitfall_12_no_valid_token_where_attention_is_softmax_to_the_letter(monkeypatch):
    """Some kernels answer zero to a row that may see nothing; by the definition it is 0 / 0."""

    def textbook(q, k, v, attn_mask=None):
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return (
            scores if attn_mask is None else scores.masked_fill(~attn_mask, -torch.inf)
        ).softmax(-1) @ v

    network, (x, t, condition) = build(TINY), inputs(TINY)
    condition.mask[1] = False
    with torch.no_grad():
        expected = network(x, t, condition)
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", textbook)
        torch.testing.assert_close(network(x, t, condition), expected, rtol=1e-4, atol=1e-5)


def test_order_of_tokens_does_not_matter():
    network, (x, t, condition) = build(TINY), inputs(TINY)
    flipped = Condition(condition.tokens.flip(1), condition.mask.flip(1))
    with torch.no_grad():
        torch.testing.assert_close(
            network(x, t, flipped), network(x, t, condition), rtol=1e-4, atol=1e-5
        )


def test_class_table():
    """A one-hot vector picks a row of the table, zero picks none, halves mix two."""
    config = KINDS["classes"]
    network, (x, t, condition) = build(config), inputs(config, b=1)
    table = network.class_embedding.weight
    hook = []
    network.down_blocks[0].resnets[0].time_emb_proj.register_forward_pre_hook(
        lambda m, args: hook.append(args[0])
    )
    for vector, row in (
        (torch.eye(5)[[2]], table[2]),
        (torch.zeros(1, 5), 0 * table[0]),
        (torch.tensor([[0.5, 0, 0, 0.5, 0]]), (table[0] + table[3]) / 2),
    ):
        network(x, t, replace(condition, vector=vector))
        expected = network.time_embedding(network.time_proj(t))[0] + row
        torch.testing.assert_close(hook.pop(), torch.nn.functional.silu(expected)[None])


def small(name):
    """The preset with a quarter of its channels, so that the test is quick; the toy as it is."""
    config = PRESETS[name]
    return (
        config
        if name == "toy"
        else replace(config, channels=tuple(c // 4 for c in config.channels), groups=8)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_first_training_step_of_a_preset(name):
    """What starts at zero is named, the answer is zero, and so the first gradient reaches the
    output alone."""
    network = build(small(name), awake=False).train()
    zeros = {
        k for k, p in network.named_parameters() if not p.any() and not re.search(r"norm.*bias", k)
    }
    assert zeros == {k for k, _ in network.named_parameters() if ZERO.search(k)}
    x, t, condition = inputs(small(name))
    assert not network(x, t, condition).any()  # so the first loss is the mean square of the target
    training_loss(
        network, x, condition, NoiseSchedule(), null=condition[[0]], cfg_drop=0.3
    ).mean().backward()
    assert {k for k, p in network.named_parameters() if p.grad.any()} == {
        "conv_out.weight",
        "conv_out.bias",
    }


@pytest.mark.parametrize("name", PRESETS)
def test_gradients_reach_every_parameter_of_a_preset(name):
    """At full size, once nothing is zero any more."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = UNet(PRESETS[name]).to_empty(device="cpu")
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(std=0.02)
    x, _t, condition = inputs(PRESETS[name], b=1)
    training_loss(network, x, condition, NoiseSchedule()).mean().backward()
    assert not [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_all_parameters_learn_from_the_third_step():
    """First the output, then the ends of the branches, then everything."""
    network = build(TINY, awake=False).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for reached in (0.05, 0.9, 1.0):
        x, t, condition = inputs(TINY)
        optimiser.zero_grad()
        (network(x, t, condition) - torch.randn_like(x)).square().mean().backward()
        alive = [p.grad.any().item() for p in network.parameters()]
        optimiser.step()
        assert sum(alive) <= reached * len(alive)
        assert any(alive)
    assert all(alive)


def test_autocast_and_plain_bfloat16():
    network, (x, t, condition) = build(TINY), inputs(TINY)
    with torch.no_grad():
        expected = network(x, t, condition)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, t, condition)
        plain = network.bfloat16()(x, t, condition)
    for out in (half, plain):
        assert out.dtype == torch.float32
        assert (out - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_pitfall_25_no_value_decides_what_is_computed(kind):
    """On the meta device there are no values: a step that read one would wait for the device."""
    config = KINDS[kind]
    x, t, condition = inputs(config, hw=(7, 5))
    out = build(config).to("meta")(
        x.to("meta"), t, condition.to("meta") if condition else None
    )  # t stays on the host
    assert out.shape == (3, config.out_channels, 7, 5)
    assert out.is_meta


@pytest.mark.slow
def test_compiles_as_one_graph():
    config = replace(TINY, attention=("self", "cross"), middle="none", middle_blocks=0, classes=5)
    network, (x, t, condition) = build(config), inputs(config, hw=(7, 8))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, t, condition), network(x, t, condition))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(x=torch.zeros(2, 3, 8, 8)), "x has shape (2, 3, 8, 8), expected (b, 4, h, w)"),
        (dict(x=torch.zeros(4, 8, 8)), "x has shape (4, 8, 8)"),
        (dict(x=torch.zeros(2, 4, 0, 8)), "not empty"),
        (dict(t=torch.zeros(3)), "t has shape (3,), expected (2,) or a scalar"),
        (dict(condition=None), "condition.tokens has shape None, expected (2, n, 8)"),
        (
            dict(condition=Condition(torch.zeros(2, 5, 7))),
            "condition.tokens has shape (2, 5, 7), expected (2, n, 8)",
        ),
        (
            dict(condition=Condition(torch.zeros(1, 5, 8))),
            "condition.tokens has shape (1, 5, 8), expected (2, n, 8)",
        ),
        (
            dict(condition=Condition(torch.zeros(2, 5, 8), vector=torch.zeros(2, 3))),
            "condition.vector has shape (2, 3), expected None",
        ),
        (
            dict(condition=Condition(torch.zeros(2, 5, 8), maps=torch.zeros(2, 3, 8, 8))),
            "condition.maps",
        ),
        (
            dict(condition=Condition(torch.zeros(2, 5, 8), torch.ones(2, 5))),
            "condition.mask is torch.float32",
        ),
    ],
)
def test_refused_inputs(change, words):
    good = dict(
        x=torch.zeros(2, 4, 8, 8), t=torch.zeros(2), condition=Condition(torch.zeros(2, 5, 8))
    )
    network = build(TINY)
    network(**good)
    with pytest.raises(ValueError, match="UNet: ") as error:
        network(**{**good, **change})
    assert words in str(error.value)
    assert "\n" not in str(error.value)
