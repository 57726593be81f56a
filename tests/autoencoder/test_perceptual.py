"""The latent perceptual loss: where it is zero, what counts in it, where its gradient goes."""

import pytest
import torch
from torch import nn

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.autoencoder.perceptual import Perceptual, feature_distance
from tinyldm.diffusion.loss import Noised
from tinyldm.diffusion.prediction import target
from tinyldm.diffusion.schedule import NoiseSchedule

MEAN = torch.tensor([0.3, -2.0])[:, None, None]
STD = torch.tensor([0.7, 5.0])[:, None, None]
SCHEDULE = NoiseSchedule()


class Decoder(nn.Module):
    """A frozen decoder with two layers of features, which counts the latents that it is shown."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.requires_grad_(False)
        self.shown = 0

    def features(self, latents):
        self.shown += len(latents)
        x = torch.nn.functional.silu(self.first(latents))
        return [x, self.second(x)]


def batch(times, seed=0):
    """x0, eps, x_t (b, 2, 8, 8) and the level of each."""
    generator = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, len(times), 2, 8, 8, generator=generator)
    level = SCHEDULE.level(torch.tensor(times)).like(x0)
    return x0, eps, level.alpha * x0 + level.sigma * eps, level


def noised(x_t, x0, level):
    """What the loss is given; it does not look at eps."""
    return Noised(x0=x0, eps=torch.zeros_like(x0), t=level.t, level=level, x_t=x_t)


def test_the_gradient_goes_through_the_frozen_decoder_into_the_network():
    vae = Decoder()
    loss = Perceptual(vae, MEAN, STD)
    network = nn.Conv2d(2, 2, 3, padding=1)
    x0, _, x_t, level = batch([200.0] * 8)
    loss(network(x_t), noised(x_t, x0, level), "v").backward()
    assert network.weight.grad.abs().max() > 0
    assert vae.first.weight.grad is None


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_a_perfect_prediction_costs_nothing(prediction):
    loss = Perceptual(Decoder(), MEAN, STD)
    x0, eps, x_t, level = batch([200.0] * 8)
    perfect = target(x0, eps, level, prediction)
    assert loss(perfect, noised(x_t, x0, level), prediction).item() == pytest.approx(0, abs=1e-9)
    assert loss(perfect + 0.1, noised(x_t, x0, level), prediction) > 1e-6


def test_where_there_is_more_noise_than_signal_nothing_counts():
    vae = Decoder()
    x0, _, x_t, level = batch([950.0] * 8)
    predicted = torch.randn_like(x0).requires_grad_(True)
    loss = Perceptual(vae, MEAN, STD)(predicted, noised(x_t, x0, level), "v")
    assert loss == 0
    loss.backward()  # it has a graph all the same
    assert torch.equal(predicted.grad, torch.zeros_like(x0))
    assert vae.shown == 0


def test_it_counts_by_the_share_of_clear_samples():
    loss = Perceptual(Decoder(), MEAN, STD)
    x0, guess, _, some = batch([200.0] * 2 + [950.0] * 6)
    clear = SCHEDULE.level(torch.full((2,), 200.0)).like(x0)
    whole = loss(guess[:2] / 2, noised(guess[:2], x0[:2], clear), "v")
    part = loss(guess / 2, noised(guess, x0, some), "v")
    assert part.item() == pytest.approx(whole.item() / 4, rel=1e-4)


def test_the_decoder_is_shown_the_autoencoders_own_latents():
    """Normalised by other statistics, the same latents cost the same."""
    vae = Decoder()
    x0, _, x_t, level = batch([300.0] * 4)
    direct = Perceptual(vae, torch.zeros(2, 1, 1), torch.ones(2, 1, 1))
    loss = Perceptual(vae, MEAN, STD)
    expected = direct(x0 * STD + MEAN + 0.1 * STD, noised(x_t, x0 * STD + MEAN, level), "x0")
    assert loss(x0 + 0.1, noised(x_t, x0, level), "x0").item() == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_it_takes_a_whole_autoencoder():
    torch.manual_seed(0)
    config = AutoencoderConfig(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=1, latent_channels=2
    )
    vae = AutoencoderKL(config).eval().requires_grad_(False)
    x0, eps, x_t, level = batch([100.0] * 2)
    loss = Perceptual(vae, MEAN, STD)
    assert loss(x0, noised(x_t, x0, level), "x0") == 0
    assert loss(x0 + 0.1 * eps, noised(x_t, x0, level), "x0") > 0


def test_a_step_down_its_gradient_lowers_it():
    loss = Perceptual(Decoder(), MEAN, STD)
    x0, _, x_t, level = batch([200.0] * 4)
    predicted = torch.zeros_like(x0).requires_grad_(True)
    before = loss(predicted, noised(x_t, x0, level), "v")
    before.backward()
    after = loss(predicted - 1e-2 * predicted.grad.sign(), noised(x_t, x0, level), "v")
    assert after < before


def test_feature_distance_is_zero_for_equals_and_has_no_unit():
    generator = torch.Generator().manual_seed(0)
    wanted = [
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.randn(2, 8, 4, 4, generator=generator),
    ]
    assert feature_distance(wanted, wanted) == 0
    nothing = [torch.zeros_like(f) for f in wanted]
    assert feature_distance(nothing, wanted).item() == pytest.approx(1, abs=1e-4)
    other = [f + 0.1 for f in wanted]
    scaled = feature_distance([100 * f for f in other], [100 * f for f in wanted])
    assert scaled.item() == pytest.approx(feature_distance(other, wanted).item(), rel=1e-4)
    assert scaled > 0


def test_the_decoders_features_lead_to_its_picture():
    """What is left of the decoder makes of the last of them what decode makes of the latents."""
    torch.manual_seed(0)
    config = AutoencoderConfig(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
    )
    vae = AutoencoderKL(config).eval()
    z, end = torch.randn(2, vae.latent_channels, 4, 6), vae.decoder
    seen = vae.features(z)
    assert [f.shape[2:] for f in seen] == [(4, 6), (8, 12), (16, 24)]
    picture = end.conv_out(nn.functional.silu(end.conv_norm_out(end.up_blocks[-1](seen[-1]))))
    torch.testing.assert_close(picture, vae.decode(z))
