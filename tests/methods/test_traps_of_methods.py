"""Traps of docs/pitfalls.md that methods have, each written out as it was made beside ours."""

import math
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from stand_ins import scrambled
from torch import nn

from tinyldm.condition import Condition
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.loss import draw_noise
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.methods.consistency import ConsistencyLoss
from tinyldm.methods.controlnet import ControlNet
from tinyldm.methods.editing import Inpainting, invert
from tinyldm.methods.interpolation import slerp
from tinyldm.methods.lora import LoRA, find_layers
from tinyldm.methods.power_ema import LENGTHS, Profile, gamma_of, synthesis
from tinyldm.nn.unet import UNet, UNetConfig

COSINE = NoiseSchedule()
SHAPE = UNetConfig(
    in_channels=3,
    out_channels=3,
    channels=(8, 16),
    attention=("none", "cross"),
    blocks=1,
    heads=2,
    groups=4,
    token_dim=6,
)
X, T = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 700.0])
TOKENS, MAPS = torch.randn(2, 4, 6), torch.rand(2, 5, 8, 8)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pitfall_42_what_is_known_has_the_noise_of_the_level_that_a_step_goes_to():
    """After the step from t to s, the known part has the spread sigma_s, as the drawn one has.

    The trap puts alpha_t x0 + sigma_t eps there, and the network sees two levels in one picture.
    """
    grid, known = COSINE.grid(10), normal(1, 1, 60, 60)
    drawn = torch.zeros(1, 1, 60, 60, dtype=torch.bool)
    drawn[..., 30:] = True

    def spreads(level, x):
        return ((x - level.alpha * known)[~drawn].std() / level.sigma).item()

    def oracle(x, t, condition):  # what is drawn is known to be known as well
        return known

    passed = []
    sample(
        oracle,
        known.shape,
        COSINE,
        DDIM(),
        spacing=grid,
        prediction="x0",
        seeds=[0],
        clip=Inpainting(known, drawn),
        dtype=torch.float64,
        callback=lambda step, x, x0: passed.append(x),
    )
    for k, x in enumerate(passed[:-1]):
        now, nxt = grid[k], grid[k + 1]
        other = now.alpha * known + now.sigma * normal(60, 60, seed=100 + k)
        off = math.hypot(now.alpha - nxt.alpha, now.sigma) / nxt.sigma
        assert spreads(nxt, x) == pytest.approx(1, abs=0.06)
        assert spreads(nxt, torch.where(drawn, x, other)) == pytest.approx(off, abs=0.1)
        assert off > 1.02
    assert off > 1.5


def test_pitfall_43_an_inversion_shows_each_x_with_its_time():
    """The trap shows it with the number of the step, 0 to 99, and so with too little noise.

    N(0, 1/4), 100 steps: the flow keeps the quantile, so that of x0 = z / 2 begins at x_T = z.
    """
    std, grid, z = 0.5, COSINE.grid(100), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def x0_of(x, level):
        gain = level.alpha * std**2 / ((level.alpha * std) ** 2 + level.sigma**2)
        return gain * x

    def denoiser(x, t, condition):
        return x0_of(x, COSINE.level(t[0].item()))

    first = grid[0]
    truth = math.hypot(first.alpha * std, first.sigma) * z
    found = invert(denoiser, std * z, COSINE, grid, DDIM(), prediction="x0")
    assert (found - truth).abs().max() < 0.04

    rising = [COSINE.level(0.0), *(level for level in reversed(grid) if level.t > 0)]
    x = std * z
    for k, (now, nxt) in enumerate(pairwise(rising)):
        told = COSINE.level(float(k))  # the trap
        eps = (x - told.alpha * x0_of(x, told)) / told.sigma  # as a network predicts it
        x = nxt.alpha * (x - now.sigma * eps) / now.alpha + nxt.sigma * eps
    assert (x - truth).abs().max() > 0.2


def test_pitfall_44_between_two_noises_there_is_noise():
    """A straight line has the variance (1 - a)^2 + a^2 in between: half of it is lost at a = 1/2.

    Its flow leads to grey: for data N(0, s^2) to that many times s.
    """
    a, b = normal(1, 20_000), normal(1, 20_000, seed=1)
    for share in (0.25, 0.5, 0.7):
        on_sphere = slerp(a, b, torch.tensor([share])).var().item()
        straight = ((1 - share) * a + share * b).var().item()
        assert on_sphere == pytest.approx(1, abs=0.05)
        assert straight == pytest.approx((1 - share) ** 2 + share**2, abs=0.05)
        assert straight < 0.7


class Dropping(nn.Module):
    """Predicts x0, here 1, through dropout alone; the same for every x_t and t."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, t, condition):
        return self.dropout(torch.ones_like(x))


def test_pitfall_45_both_looks_of_a_consistency_loss_drop_the_same():
    """A function that does not depend on t has no loss, whatever it drops. With dropout of its own,
    the target differs, and what is learned is to be insensitive to dropout."""
    noised = draw_noise(normal(64, 50).float(), COSINE, torch.Generator().manual_seed(0))
    network = Dropping().train()
    loss = ConsistencyLoss(COSINE, "x0", first=2, last=100, c=0.0)
    torch.manual_seed(0)
    found = loss(network, noised, None, 1.0)  # of the shortest steps: s is never clean but at 0
    inner = noised.t >= 10
    assert found[inner].abs().max() == 0
    one, other = (network(noised.x_t, noised.t, None) for _ in range(2))
    assert (one - other).square().mean().sqrt() > 1


def test_pitfall_46_a_controlnet_begins_as_its_base():
    """Behind the copy and behind the maps stand convolutions of zeros.

    With any others, what is added at first is a random change of every skip.
    """
    base = scrambled(UNet(SHAPE)).eval()
    network = ControlNet.new(base, 5)
    with torch.no_grad():
        expected = base(X, T, Condition(TOKENS))
        assert torch.equal(network(X, T, Condition(TOKENS, maps=MAPS)), expected)
        for zeros in [*network.zeros, network.zero_middle]:
            zeros.reset_parameters()  # the trap: as torch would begin them
        trap = network(X, T, Condition(TOKENS, maps=MAPS))
    assert (trap - expected).std() > 0.03 * expected.std()


def test_pitfall_47_factors_are_merged_once():
    """W + BA, and not W + 2 BA: merging changes the base, so that a second time would add it again,
    and so would a call of the adapter on the changed base. Both are refused."""
    lora = scrambled(LoRA(scrambled(UNet(SHAPE)).eval(), 2, None, ["conv_in"]))
    before, other = lora.base.conv_in.weight.clone(), deepcopy(lora.base)
    change = lora.weights()["conv_in.weight"] - before
    assert change.abs().max() > 0.01
    lora.merge()
    for again in (lora.merge, lora.weights, lambda: lora(X, T, Condition(TOKENS))):
        with pytest.raises(ValueError, match="merged"):
            again()
    torch.testing.assert_close(lora.base.conv_in.weight, before + change)
    fresh = LoRA(other, 2, None, find_layers(other, "conv_in$"))  # another adapter may follow
    fresh.merge()
    assert torch.equal(other.conv_in.weight, before)


@pytest.mark.parametrize("resumed", [300, 500])
def test_pitfall_48_averages_count_the_steps_of_the_whole_run(resumed):
    """Weights that are theta(tau) = tau^2 have the average (g + 1) / (g + 3) t^2, in closed form.

    Of those kept, the synthesis comes near it. If steps are counted from where the run was resumed,
    each profile is taken for another, and the sum is an average of no length. With the exponent of
    a kept one in place of that of the length, it is another length.
    """
    last, length = 1000.0, 0.15
    kept = [Profile(each, float(t)) for t in range(50, 1001, 50) for each in LENGTHS]
    kept = [profile for profile in kept if profile.t > resumed]

    def average(profile):
        g = gamma_of(profile.sigma_rel)
        return (g + 1) / (g + 3) * profile.t**2

    def error(profiles, wanted):
        """Of the sum of the kept averages, if they are taken for averages of these profiles."""
        coefficients, _ = synthesis(profiles, wanted)
        values = np.array([average(profile) for profile in kept])
        return abs(values @ coefficients / average(Profile(length, last)) - 1)

    ours = error(kept, Profile(length, last))
    counted = [Profile(profile.sigma_rel, profile.t - resumed) for profile in kept]
    assert ours < 0.007
    assert error(counted, Profile(length, last - resumed)) > max(5 * ours, 0.02)
    assert error(kept, Profile(LENGTHS[-1], last)) > 0.1
