"""Stage one: training an autoencoder on pictures (2112.10752)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.autoencoder.perceptual import feature_distance
from tinyldm.device import runs_bfloat16
from tinyldm.errors import InputError
from tinyldm.files import replacing_files, write_text
from tinyldm.scores.reconstruction import to_batch
from tinyldm.signals import StopRequest
from tinyldm.stage_one.losses import Critic, adaptive_weight, critic_loss
from tinyldm.stage_one.pictures import augmented
from tinyldm.stage_one.progress import SCORES, Pictures, publish
from tinyldm.stage_one.recipe import Recipe
from tinyldm.training.ema import EMA
from tinyldm.training.optimizers import MOMENTS
from tinyldm.typed import read_json
from tinyldm.weights import check_finite, check_fit, load_into, read_weights, write_weights

STATE, RECIPE = "training.safetensors", "recipe.json"


def train_autoencoder(
    start: AutoencoderConfig | AutoencoderKL,
    images: np.ndarray | Tensor,
    recipe: Recipe,
    out: str | Path,
    *,
    held_out: Pictures,
    save_every: int = 200,
    device: torch.device | str = "cpu",
    resume: bool = False,
    stop: StopRequest | None = None,
) -> AutoencoderKL:
    """Train an autoencoder on uint8 images (n, h, w, 3); returns it with its averaged weights.

    Every save_every steps and at the end, the averaged weights are measured on each set of held_out
    and written to the folder out, with scores.csv, reconstructions.png and what resume needs.
    start:  the shape of a new autoencoder, or one to go on from
    resume: go on with what was stopped in that folder, bit for bit
    stop:   once it is requested, the training saves and ends after the step under way
    """
    out = Path(out)
    torch.manual_seed(recipe.seed)
    if isinstance(start, AutoencoderConfig):
        model = AutoencoderKL(start)
        prepare(model)
    else:
        model = start.requires_grad_(True)
    stage = StageOne(model, images, recipe, device)
    if resume:
        stage.restore(out)
    scores = out / SCORES if resume else None  # those of another training are not gone on with

    with tqdm(desc="autoencoder", unit="step", total=recipe.steps, initial=stage.step) as bar:
        stopping = False
        while stage.step < recipe.steps and not stopping:
            losses = stage.advance()
            if stage.step % 10 == 0:
                shown = {name: f"{loss.item():.4f}" for name, loss in losses.items()}
                bar.set_postfix(shown, refresh=False)
            bar.update()
            stopping = stop is not None and stop.requested
            if stage.step % save_every == 0 or stage.step == recipe.steps or stopping:
                stage.check_finite()
                with replacing_files(out) as draft:
                    publish(stage.averaged, draft, stage.step, held_out, scores=scores)
                    stage.save(draft)
                scores = out / SCORES
    return stage.averaged


class StageOne:
    """An autoencoder in training, with its average, its optimiser and maybe a critic.

    images: uint8 (n, h, w, 3)
    step:   how many optimiser steps have been taken
    facts:  what a training that goes on must have in common with the one that was stopped
    """

    def __init__(
        self,
        model: AutoencoderKL,
        images: np.ndarray | Tensor,
        recipe: Recipe,
        device: torch.device | str = "cpu",
    ):
        self.recipe = recipe
        self.device = device
        self.images = torch.as_tensor(images)
        self.step = 0
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.order = torch.empty(0, dtype=torch.long)  # the numbers of the images to come
        content = self.images.contiguous().numpy().data
        self.facts = {
            **recipe.to_dict(),
            "shape": model.config.architecture(),
            "images": [*self.images.shape, blake2b(content, digest_size=4).hexdigest()],
        }
        # Convolutions are quicker in this layout. torch's type hints do not know the argument.
        model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: AutoencoderKL = model.train()
        self.average = EMA(model, recipe.ema)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.critic: Critic | None = None
        self.critic_optimiser: torch.optim.Optimizer | None = None
        if recipe.has_critic:
            self.critic = Critic().to(device)
            self.critic_optimiser = torch.optim.AdamW(
                self.critic.parameters(), lr=recipe.lr, betas=(0.5, 0.9)
            )

    @property
    def averaged(self) -> AutoencoderKL:
        """The autoencoder with the averaged weights."""
        network = self.average.network
        assert isinstance(network, AutoencoderKL)
        return network

    def batch(self) -> Tensor:
        """The next images, (b, 3, h, w) in [-1, 1]; each comes once before any comes again."""
        recipe, generator = self.recipe, self.generator
        while len(self.order) < recipe.batch_size:
            further = torch.randperm(len(self.images), generator=generator)
            self.order = torch.cat([self.order, further])
        rows = self.order[: recipe.batch_size]
        self.order = self.order[recipe.batch_size :]
        x = to_batch(self.images[rows])
        if torch.rand((), generator=generator) < recipe.augment:
            x = augmented(x, generator)
        if recipe.flip and torch.rand((), generator=generator) < recipe.flip:
            x = x.flip(3)
        return x.to(self.device)

    def advance(self) -> dict[str, Tensor]:
        """Take one optimiser step; returns the losses by name."""
        recipe = self.recipe
        x = self.batch()
        self.step += 1
        self._set_learning_rate()
        bfloat16 = runs_bfloat16(x.device, recipe.precision)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            posterior = self.model.posterior(x)
            y = self.model.decode(posterior.sample(self.generator))
        losses = {
            "L1": (y - x).abs().mean(),
            "MSE": (y - x).square().mean(),
            "KL": posterior.kl().mean(),
        }
        error = losses["L1"] + recipe.squared * losses["MSE"]
        total = error + recipe.kl * losses["KL"]
        criticised = recipe.has_critic and self.step > recipe.critic_from
        if criticised:
            criticism, parts = self.criticism(x, y, error)
            total = total + criticism
            losses |= parts
        self._descend(total)
        if criticised:
            losses["critic"] = self._train_critic(x, y)
        return losses

    def criticism(self, x: Tensor, y: Tensor, error: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the critic adds to the loss of reconstructions y of x, and its parts by name.

        error: the loss of the pixels, which the critic's verdict is weighed against
        """
        assert self.critic is not None
        recipe, parts = self.recipe, {}
        total = y.new_zeros(())
        if recipe.perceptual:
            with torch.no_grad():
                wanted = self.critic.features(x)
            parts["perceptual"] = feature_distance(self.critic.features(y), wanted)
            total = total + recipe.perceptual * parts["perceptual"]
        if recipe.adversarial:
            verdict = -self.critic(y).mean()
            parts["adversarial"] = verdict
            last = self.model.decoder.conv_out.weight
            weight = adaptive_weight(error, verdict, last)
            total = total + recipe.adversarial * weight * verdict
        return total, parts

    def _set_learning_rate(self) -> None:
        """Rise linearly over the warm-up; fall along half a cosine over all steps."""
        recipe = self.recipe
        rise = min(self.step / recipe.warmup, 1)
        fall = 0.5 * (1 + math.cos(math.pi * self.step / (recipe.steps + 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * rise * fall

    def _descend(self, loss: Tensor) -> None:
        """Take a step of optimiser and average; InputError where the gradient is not finite."""
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not norm.isfinite():
            raise InputError(
                f"step {self.step}: the gradient is not finite; what was saved is whole; "
                "try a lower --lr"
            )
        self.optimiser.step()
        self.average.update(self.model)

    def _train_critic(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one step of the critic; returns its loss."""
        assert self.critic is not None
        assert self.critic_optimiser is not None
        loss = critic_loss(self.critic, x, y)
        self.critic_optimiser.zero_grad()  # of what the autoencoder's step has left there, too
        loss.backward()
        self.critic_optimiser.step()
        return loss

    # ---- stopping and going on

    def check_finite(self) -> None:
        """InputError if a weight is no longer finite, before anything is shown or saved."""
        try:
            for module in self._modules().values():
                check_finite(module.state_dict(), f"step {self.step}")
        except InputError as error:
            raise InputError(f"{error}; what was saved is whole; try a lower --lr") from None

    def save(self, out: Path) -> None:
        """Write what restore needs to a folder."""
        tensors = {
            "generator": self.generator.get_state(),
            "order": self.order,
            "step": torch.tensor(self.step),
        }
        for part, module in self._modules().items():
            tensors |= _prefixed(part, module.state_dict())
        for part, optimiser in self._optimisers().items():
            for k, state in optimiser.state_dict()["state"].items():
                tensors |= _prefixed(f"{part}.{k}", state)
        write_weights(out / STATE, tensors)
        write_text(out / RECIPE, json.dumps(self.facts, indent=1))

    def restore(self, out: Path) -> None:
        """Go on from what save wrote; InputError: nothing is there, or it had another recipe."""
        if not (out / STATE).is_file() or not (out / RECIPE).is_file():
            raise InputError(
                f"--resume: {out} holds no {STATE}; "
                "expected the folder of a training that was stopped"
            )
        before = read_json(out / RECIPE, dict[str, Any])
        for name, value in self.facts.items():
            if before.get(name) != value:
                raise InputError(
                    f"--resume: {out} was started with {name} {before.get(name)}, now it is {value}"
                )
        tensors = read_weights(out / STATE)
        check_fit(tensors, self._expected(tensors), out / STATE)
        order, step = tensors["order"], int(tensors["step"])
        known = not len(order) or 0 <= int(order.min()) <= int(order.max()) < len(self.images)
        if not known or not 0 <= step <= self.recipe.steps:
            raise InputError(f"{out / STATE}: order or step are not those of this training")
        for part, module in self._modules().items():
            load_into(module, _part(tensors, part), out / STATE)
        for part, optimiser in self._optimisers().items():
            _restore_optimiser(optimiser, _part(tensors, part))
        self.generator.set_state(tensors["generator"])
        self.order = order
        self.step = step
        self.average.count_from(self.step)

    def _expected(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What save writes, as it is in a file that holds these tensors.

        The order is as long as there; an optimiser that has taken no step has no moments.
        """
        rest = tensors.get("order", self.order)
        expected = {
            "generator": self.generator.get_state(),
            "order": self.order.new_zeros(rest.numel()),
            "step": torch.tensor(0),
        }
        for part, module in self._modules().items():
            expected |= _prefixed(part, module.state_dict())
        for part, optimiser in self._optimisers().items():
            for k, p in enumerate(_parameters(optimiser)):
                if any(f"{part}.{k}.{kind}" in tensors for kind in MOMENTS[type(optimiser)]):
                    moments = {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p}
                    expected |= _prefixed(f"{part}.{k}", moments)
        return expected

    def _modules(self) -> dict[str, nn.Module]:
        """The networks that save and restore know, by the first part of their weights' names."""
        modules = {"model": self.model, "average": self.average.network}
        return modules if self.critic is None else modules | {"critic": self.critic}

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers that save and restore know; the file calls the critic's "judge"."""
        optimisers: dict[str, torch.optim.Optimizer] = {"optimiser": self.optimiser}
        if self.critic_optimiser is not None:
            optimisers["judge"] = self.critic_optimiser
        return optimisers


def _prefixed(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the name of the part before their own."""
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The inverse of _prefixed: the tensors of one part."""
    start = f"{part}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The weights that an optimiser changes, in the order that it counts them."""
    return [p for group in optimiser.param_groups for p in group["params"]]


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state of each weight: tensors named k.exp_avg, k.exp_avg_sq, k.step."""
    state = {k: _part(tensors, str(k)) for k in range(len(_parameters(optimiser)))}
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


@torch.no_grad()
def prepare(model: AutoencoderKL) -> None:
    """Start the weights where learning is quick; docs/vae.md compares.

    ResBlocks pass their input on, all other convolutions keep the size of their input, and the
    posteriors have a standard deviation of 0.05.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d) or name.endswith("conv1"):
            continue
        if name.endswith("conv2"):
            layer.weight.zero_()
        else:
            inputs = layer.weight[0].numel()
            layer.weight.normal_(std=inputs**-0.5)
            if layer.bias is not None:
                layer.bias.zero_()
    last = model.encoder.conv_out
    if isinstance(model.quant_conv, nn.Conv2d):
        last = model.quant_conv
    assert last.bias is not None
    c = model.latent_channels  # the means, and after them the logarithms of the variances
    last.weight[c:] *= 0.1
    last.bias[c:] = -6.0  # exp(-6 / 2) = 0.05
