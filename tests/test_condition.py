"""Condition against plain tensor arithmetic."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.condition import Condition


def make(b, n=3, mask=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    kept = torch.arange(n) < torch.randint(1, n + 1, (b, 1), generator=g) if mask else None
    return Condition(torch.randn(b, n, 5, generator=g), kept, torch.randn(b, 2, generator=g))


def same(a, b):
    return a.parts().keys() == b.parts().keys() and all(
        torch.equal(a.parts()[k], b.parts()[k]) for k in a.parts()
    )


def test_refuses_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="mask"):
        Condition(mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask"):
        Condition(tokens=torch.zeros(2, 3, 4), mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="batch size"):
        Condition(tokens=torch.zeros(2, 3, 4), vector=torch.zeros(3, 4))


def test_rows_length_and_dtype():
    c = make(4)
    assert len(c) == 4
    assert len(Condition()) == 0
    assert len(c[1:3]) == 2
    assert len(c[[3]]) == 1
    half = c.to(dtype=torch.bfloat16)
    assert half.tokens.dtype == half.vector.dtype == torch.bfloat16
    assert half.mask.dtype == torch.bool


def test_pitfall_12_padding_is_zero_and_masked():
    c = make(2, n=3, mask=False)
    longer = c.padded(7)
    assert longer.tokens.shape == (2, 7, 5)
    assert torch.equal(longer.tokens[:, :3], c.tokens)
    assert longer.tokens[:, 3:].abs().sum() == 0
    assert longer.mask[:, :3].all()
    assert not longer.mask[:, 3:].any()
    assert c.padded(3) is c
    with pytest.raises(ValueError, match="can't be padded"):
        c.padded(2)


def test_pitfall_12_cat_gives_a_mask_where_lengths_differ():
    both = Condition.cat([make(2, n=3, mask=False), make(1, n=5, mask=False)])
    assert both.mask.sum(1).tolist() == [3, 3, 5]
    assert Condition.cat([make(2, mask=False), make(1, mask=False)]).mask is None
    half = Condition.cat(
        [make(2, mask=False), make(1, mask=True)]
    )  # one has a mask: the other's tokens all count
    assert half.mask[:2].all()


def test_cat_is_undone_by_slicing():
    a, b = make(2, seed=1), make(3, seed=2)
    both = Condition.cat([a, b])
    assert same(both[:2], a)
    assert same(both[2:], b)
    with pytest.raises(ValueError, match="different parts"):
        Condition.cat([a, Condition(vector=torch.zeros(1, 2))])


def test_drop_replaces_whole_rows():
    c, null = make(4), make(1, n=2, seed=9)
    dropped = torch.tensor([False, True, False, True])
    mixed = c.drop(null, dropped)
    assert same(mixed[~dropped], c[~dropped])
    assert same(mixed[dropped], Condition.cat([null.expand(2), c])[:2])
    assert same(c.drop(null, torch.zeros(4, dtype=torch.bool)), c)
    with pytest.raises(ValueError, match="one row"):
        c.drop(make(2), dropped)


ROWS = st.integers(1, 4)
PARTS = st.sets(st.sampled_from(["tokens", "vector", "maps"]), min_size=1)


@st.composite
def conditions(draw, rows=ROWS, parts=PARTS):
    """A condition with some parts, of some rows and some tokens, some of them masked."""
    b, n, g = (
        draw(rows),
        draw(st.integers(1, 5)),
        torch.Generator().manual_seed(draw(st.integers(0, 99))),
    )
    shapes = {"tokens": (b, n, 3), "vector": (b, 2), "maps": (b, 1, 2, 2)}
    made = {name: torch.randn(shapes[name], generator=g) for name in sorted(draw(parts))}
    if "tokens" in made and draw(st.booleans()):
        made["mask"] = torch.rand(b, n, generator=g) < 0.7
    return Condition(**made)


def told(c):
    """What each row says, whatever it is padded with: its real tokens, its vector and its maps, as
    lists."""
    rows = []
    for k in range(len(c)):
        parts = {name: part[k] for name, part in c.parts().items()}
        mask = parts.pop("mask", None)
        if mask is not None:
            parts["tokens"] = parts["tokens"][mask]
        rows.append({name: part.tolist() for name, part in parts.items()})
    return rows


alike = st.shared(st.sets(st.sampled_from(["tokens", "vector", "maps"]), min_size=1))


@given(conditions(), st.integers(0, 3))
def test_pitfall_12_padding_says_nothing(c, extra):
    longer = c.padded((0 if c.tokens is None else c.tokens.shape[1]) + extra)
    assert told(longer) == told(c)
    assert longer.padded(0 if c.tokens is None else longer.tokens.shape[1]) is longer
    assert c.tokens is None or longer.tokens.shape[1] == c.tokens.shape[1] + extra


@given(st.lists(conditions(parts=alike), min_size=1, max_size=4))
def test_cat_says_what_its_parts_say(several):
    both = Condition.cat(several)
    assert told(both) == [row for c in several for row in told(c)]
    assert len(both) == sum(map(len, several))
    assert both.tokens is None or both.tokens.shape[1] == max(c.tokens.shape[1] for c in several)


@given(conditions(parts=alike), conditions(parts=alike, rows=st.just(1)), st.data())
def test_drop_says_null_in_the_rows_that_are_dropped(c, null, data):
    dropped = data.draw(st.lists(st.booleans(), min_size=len(c), max_size=len(c)))
    mixed = c.drop(null, torch.tensor(dropped))
    assert told(mixed) == [
        a if keep else told(null)[0]
        for a, keep in zip(told(c), (not d for d in dropped), strict=True)
    ]
    assert told(null.expand(len(c))) == told(null) * len(c)


@given(conditions(), st.data())
def test_rows_say_what_they_said(c, data):
    rows = data.draw(st.lists(st.integers(0, len(c) - 1), min_size=1, max_size=5))
    assert told(c[rows]) == told(c[torch.tensor(rows)]) == [told(c)[k] for k in rows]
    assert told(c.to(dtype=torch.float64)) == told(c)
