"""Solutions of chapter 5: torch's attention, known entropies, and a denoiser that tells."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tinyldm import Condition

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "05_conditioning.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_torch(scale, masked):
    generator = torch.Generator().manual_seed(0)
    q = scale * torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 6, 8, generator=generator, dtype=torch.float64)
    mask = (torch.arange(6) < torch.tensor([[6], [2]]))[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(chapter.attend(q, k, v, mask), expected)


def test_as_many_tokens_as_are_looked_at_alike():
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(chapter.looked_at(weights), torch.tensor([1.0, 2.0, 4.0]))
    uneven = torch.tensor([0.9, 0.1])
    expected = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert chapter.looked_at(uneven).item() == pytest.approx(expected)


def test_each_row_is_told_what_its_time_asks_for():
    """A denoiser that returns what it is told shows which condition each row had."""

    def tells(x_t, t, condition):
        return condition.vector

    own = Condition(vector=torch.tensor([[1.0], [2.0], [3.0]]))
    then = Condition(vector=torch.tensor([[-1.0]]))
    told = chapter.exchanged(tells, then, 500.0)
    t = torch.tensor([900.0, 500.0, 100.0])
    assert told(torch.zeros(3, 1), t, own).tolist() == [[1.0], [-1.0], [-1.0]]
    with pytest.raises(ValueError, match="no condition"):
        told(torch.zeros(3, 1), t, None)
