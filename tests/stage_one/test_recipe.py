"""What a step of stage one minimises, shows and is paced by; what the command trains on."""

import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.cli import dispatch
from tinyldm.stage_one import training
from tinyldm.stage_one.recipe import Recipe
from tinyldm.stage_one.training import StageOne

CONFIG = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
}
PICTURES = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype=np.uint8)


def stage(steps=10, **recipe):
    torch.manual_seed(0)
    how = {"batch_size": 4, "precision": "float32", "augment": 0.0} | recipe
    return StageOne(AutoencoderKL(AutoencoderConfig(**CONFIG)), PICTURES, Recipe(steps, **how))


def test_the_loss_is_the_sum_that_the_page_shows(monkeypatch):
    """Each term by its weight; the critic's from their step on, its verdict by two weights."""
    minimised, backward = [], torch.Tensor.backward
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda loss: (minimised.append(loss.item()), backward(loss))
    )
    monkeypatch.setattr(training, "adaptive_weight", lambda *losses: torch.tensor(7.0))
    s = stage(kl=0.3, squared=2.0, perceptual=0.2, adversarial=0.5, critic_from=1)
    weights = {"L1": 1.0, "MSE": 2.0, "KL": 0.3, "perceptual": 0.2, "adversarial": 0.5 * 7}
    for terms in (3, 5):
        minimised.clear()
        losses = s.advance()
        assert len(losses.keys() & weights.keys()) == terms
        assert len(minimised) == 1 + (terms == 5)
        total = sum(
            weights[name] * value.item() for name, value in losses.items() if name in weights
        )
        assert minimised[0] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("kind", ["perceptual", "adversarial"])
def test_each_term_of_the_critic_pulls_reconstructions_its_way(monkeypatch, kind):
    """A small step down its gradient: nearer in features, or more real to the critic."""
    monkeypatch.setattr(training, "adaptive_weight", lambda *losses: 1.0)
    s = stage(**{kind: 1.0})
    x, y = s.batch(), s.batch().requires_grad_(True)
    loss, before = s.criticism(x, y, None)
    loss.backward()
    _, after = s.criticism(x, y - 1e-3 * y.grad.sign(), None)
    assert after[kind] < before[kind]
    if kind == "adversarial":
        assert before[kind].item() == pytest.approx(-s.critic(y).mean().item())


def test_every_image_comes_once_a_round_and_mirrored_where_asked():
    s, turned = stage(), stage(flip=1.0)
    seen = [s.batch() for _ in range(12)]
    for a_round in (seen[:6], seen[6:]):
        assert len({image.numpy().tobytes() for batch in a_round for image in batch}) == 24
    assert torch.equal(turned.batch(), seen[0].flip(3))


def test_the_learning_rate_rises_and_falls_to_almost_nothing():
    s, rates = stage(steps=40, warmup=4, lr=1e-3, batch_size=1), []
    for _ in range(40):
        s.advance()
        rates.append(s.optimiser.param_groups[0]["lr"])
    assert rates[:4] == sorted(rates[:4])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[0] < 3e-4
    assert 9e-4 < max(rates) <= 1e-3
    assert rates[19] == pytest.approx(5e-4, rel=0.1)
    assert rates[-1] < 1e-5


def test_images_held_out_are_not_trained_on(tmp_path, monkeypatch):
    given = {}

    def record(model, images, recipe, out, held_out, **options):
        given.update(trained=images, held=torch.as_tensor(held_out["held_out"]))
        (out / "scores.csv").write_text(f"step,mean,pooled,ssim\n{recipe.steps},1,1,1\n")

    monkeypatch.setattr(training, "train_autoencoder", record)
    for k, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{k:02d}.png")
    arguments = [
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "own"),
        "--size",
        "16",
        "--steps",
        "5",
    ]
    assert dispatch(COMMANDS, ["vae", "train", *arguments]) == 0
    parts = [{picture.numpy().tobytes() for picture in given[name]} for name in ("trained", "held")]
    assert [len(part) for part in parts] == [21, 3]
    assert not parts[0] & parts[1]
