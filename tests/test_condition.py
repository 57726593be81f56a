"""Condition against plain tensor arithmetic."""

import pytest
import torch

from tinyldm.condition import Condition


def make(b, n=3, mask=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    kept = torch.arange(n) < torch.randint(1, n + 1, (b, 1), generator=g) if mask else None
    return Condition(torch.randn(b, n, 5, generator=g), kept, torch.randn(b, 2, generator=g))


def same(a, b):
    return a.parts().keys() == b.parts().keys() and all(torch.equal(a.parts()[k], b.parts()[k]) for k in a.parts())


def test_refuses_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="mask"):
        Condition(mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask"):
        Condition(tokens=torch.zeros(2, 3, 4), mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="batch size"):
        Condition(tokens=torch.zeros(2, 3, 4), vector=torch.zeros(3, 4))


def test_rows_length_and_dtype():
    c = make(4)
    assert len(c) == 4 and len(Condition()) == 0
    assert len(c[1:3]) == 2 and len(c[[3]]) == 1
    half = c.to(dtype=torch.bfloat16)
    assert half.tokens.dtype == half.vector.dtype == torch.bfloat16 and half.mask.dtype == torch.bool


def test_pitfall_12_padding_is_zero_and_masked():
    c = make(2, n=3, mask=False)
    longer = c.padded(7)
    assert longer.tokens.shape == (2, 7, 5) and torch.equal(longer.tokens[:, :3], c.tokens)
    assert longer.tokens[:, 3:].abs().sum() == 0
    assert longer.mask[:, :3].all() and not longer.mask[:, 3:].any()
    assert c.padded(3) is c
    with pytest.raises(ValueError, match="can't be padded"):
        c.padded(2)


def test_pitfall_12_cat_gives_a_mask_where_lengths_differ():
    both = Condition.cat([make(2, n=3, mask=False), make(1, n=5, mask=False)])
    assert both.mask.sum(1).tolist() == [3, 3, 5]
    assert Condition.cat([make(2, mask=False), make(1, mask=False)]).mask is None
    half = Condition.cat([make(2, mask=False), make(1, mask=True)])  # one has a mask: the other's tokens all count
    assert half.mask[:2].all()


def test_cat_is_undone_by_slicing():
    a, b = make(2, seed=1), make(3, seed=2)
    both = Condition.cat([a, b])
    assert same(both[:2], a) and same(both[2:], b)
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
