"""Stage one: training an autoencoder on pictures."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.device import autocast
from tinyldm.errors import InputError
from tinyldm.files import read_json, replacing
from tinyldm.frozen.loading import quiet
from tinyldm.scores.reconstruction import picture_scores, reconstruct, to_batch
from tinyldm.stage_one.losses import Critic, adaptive_weight, critic_loss, feature_distance
from tinyldm.training.ema import EMA

STATE, RECIPE = "training.safetensors", "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """What an autoencoder is trained by: L1 + squared x MSE + kl x KL (2112.10752), and what a critic adds.

    augment: the share of batches that are turned, recoloured and relit; flip: of those that are mirrored
    adversarial, perceptual: weights of the critic's verdict and of what it sees, from step critic_from on
    """

    steps: int
    batch_size: int = 32
    lr: float = 1e-3
    warmup: int = 100
    kl: float = 1e-4
    squared: float = 3.0
    ema: float = 0.998  # decay of the averaged weights
    augment: float = 0.5
    flip: float = 0.0
    adversarial: float = 0.0
    perceptual: float = 0.0
    critic_from: int = 0
    precision: str = "auto"
    seed: int = 0

    @property
    def critical(self) -> bool:
        """Whether there is a critic."""
        return self.adversarial > 0 or self.perceptual > 0


def augmented(batch: Tensor, generator: torch.Generator) -> Tensor:
    """A batch (b, 3, h, w) mirrored and turned together; half of it with colours permuted, half dimmed and lit anew."""
    b, draws = len(batch), torch.rand(2, generator=generator)
    if draws[0] < 0.5:
        batch = batch.flip(3)
    if batch.shape[2] == batch.shape[3]:
        batch = batch.rot90(int(draws[1] * 4), (2, 3))
    order, kept = torch.rand(b, 3, generator=generator).argsort(1), torch.arange(3).expand(b, 3)
    order = torch.where(torch.rand(b, 1, generator=generator) < 0.5, order, kept)
    batch = batch.gather(1, order[:, :, None, None].expand_as(batch))
    contrast, light, chance = torch.rand(3, b, 1, 1, 1, generator=generator)
    return torch.where(
        chance < 0.5, batch * (0.7 + 0.4 * contrast) + 0.5 * (light - 0.5), batch
    ).clamp(-1, 1)


class StageOne:
    """An autoencoder in training on uint8 images (n, h, w, 3), with its average, its optimiser and maybe a critic."""

    def __init__(
        self, model: AutoencoderKL, images: np.ndarray | Tensor, recipe: Recipe, device="cpu"
    ):
        self.recipe, self.images, self.device, self.step = (
            recipe,
            torch.as_tensor(images),
            device,
            0,
        )
        content = blake2b(self.images.contiguous().numpy(), digest_size=4).hexdigest()
        self.facts = {"shape": model.config.architecture(), "images": [*self.images.shape, content]}
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.order = torch.empty(0, dtype=torch.long)  # of the images to come
        self.model = model.to(
            device, memory_format=torch.channels_last
        ).train()  # quicker convolutions
        self.average = EMA(model, recipe.ema)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.critic = Critic().to(device) if recipe.critical else nn.Module()
        if recipe.critical:
            self.judge = torch.optim.AdamW(self.critic.parameters(), lr=recipe.lr, betas=(0.5, 0.9))

    def batch(self) -> Tensor:
        """The next images, (b, 3, h, w) in [-1, 1]: each comes once before any comes again."""
        recipe, generator = self.recipe, self.generator
        while len(self.order) < recipe.batch_size:
            self.order = torch.cat(
                [self.order, torch.randperm(len(self.images), generator=generator)]
            )
        rows, self.order = self.order[: recipe.batch_size], self.order[recipe.batch_size :]
        x = to_batch(self.images[rows])
        if torch.rand((), generator=generator) < recipe.augment:
            x = augmented(x, generator)
        if recipe.flip and torch.rand((), generator=generator) < recipe.flip:
            x = x.flip(3)
        return x.to(self.device)

    def advance(self) -> dict[str, Tensor]:
        """One optimiser step; the losses by name."""
        recipe, x = self.recipe, self.batch()
        self.step += 1
        fraction = 0.5 * (1 + math.cos(math.pi * self.step / (recipe.steps + 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * min(self.step / recipe.warmup, 1) * fraction
        with autocast(x.device, recipe.precision):
            posterior = self.model.posterior(x)
            y = self.model.decode(posterior.sample(self.generator))
        losses = {
            "L1": (y - x).abs().mean(),
            "MSE": (y - x).square().mean(),
            "KL": posterior.kl().mean(),
        }
        error = losses["L1"] + recipe.squared * losses["MSE"]
        total = error + recipe.kl * losses["KL"]
        criticised = recipe.critical and self.step > recipe.critic_from
        if criticised:
            total = total + self.criticism(x, y, error, losses)
        self.optimiser.zero_grad()
        total.backward()
        if not torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).isfinite():
            raise InputError(
                f"step {self.step}: the gradient is not finite; what was saved is whole; try a lower --lr"
            )
        self.optimiser.step()
        self.average.update(self.model)
        if criticised:
            losses["critic"] = critic_loss(self.critic, x, y)
            self.judge.zero_grad()  # of what the model's step has left there, too
            losses["critic"].backward()
            self.judge.step()
        return losses

    def criticism(self, x: Tensor, y: Tensor, error: Tensor, losses: dict[str, Tensor]) -> Tensor:
        """What the critic adds to the loss of reconstructions y of x; each part is entered in losses."""
        recipe, total = self.recipe, 0.0
        if recipe.perceptual:
            with torch.no_grad():
                wanted = self.critic.features(x)
            losses["perceptual"] = feature_distance(self.critic.features(y), wanted)
            total = total + recipe.perceptual * losses["perceptual"]
        if recipe.adversarial:
            verdict = -self.critic(y).mean()
            losses["adversarial"] = verdict
            last = self.model.decoder.conv_out.weight
            total = total + recipe.adversarial * adaptive_weight(error, verdict, last) * verdict
        return total

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average.network, "critic": self.critic}

    def save(self, out: Path) -> None:
        """Write what resume needs, whole or not at all."""
        tensors = {}
        for kind, module in self._modules().items():
            tensors |= {f"{kind}.{name}": t for name, t in module.state_dict().items()}
        for kind in ("optimiser", "judge") if self.recipe.critical else ("optimiser",):
            for k, state in getattr(self, kind).state_dict()["state"].items():
                tensors |= {f"{kind}.{k}.{name}": value for name, value in state.items()}
        tensors |= {
            "generator": self.generator.get_state(),
            "order": self.order,
            "step": torch.tensor(self.step),
        }
        with replacing(out / STATE) as temporary:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary
            )
        (out / RECIPE).write_text(
            json.dumps(asdict(self.recipe) | self.facts, indent=1), encoding="utf-8"
        )

    def restore(self, out: Path) -> None:
        """Go on from what save wrote; InputError: nothing is there, or it was trained by another recipe."""
        if not (out / STATE).is_file() or not (out / RECIPE).is_file():
            raise InputError(
                f"--resume: {out} holds no {STATE}; expected the folder of a training that was stopped"
            )
        before = read_json(out / RECIPE, dict)
        for name, value in (asdict(self.recipe) | self.facts).items():
            if before.get(name) != value:
                raise InputError(
                    f"--resume: {out} was started with {name} {before.get(name)}, now it is {value}"
                )
        tensors = load_file(out / STATE)

        def part(kind):
            return {
                name.removeprefix(f"{kind}."): t
                for name, t in tensors.items()
                if name.startswith(f"{kind}.")
            }

        for kind, module in self._modules().items():
            module.load_state_dict(part(kind))
        for kind in ("optimiser", "judge") if self.recipe.critical else ("optimiser",):
            optimiser, state = getattr(self, kind), {}
            for name, value in part(kind).items():
                k, key = name.split(".")
                state.setdefault(int(k), {})[key] = value
            optimiser.load_state_dict(
                {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
            )
        self.generator.set_state(tensors["generator"])
        self.order, self.step = tensors["order"], int(tensors["step"])
        self.average.updates = self.step


def train_autoencoder(
    config: AutoencoderConfig | AutoencoderKL,
    images: np.ndarray | Tensor,
    steps: int,
    out: str | Path,
    held_out: dict[str, np.ndarray],
    *,
    save_every: int = 200,
    device="cpu",
    resume: bool = False,
    stop=None,
    **recipe,
) -> AutoencoderKL:
    """Train an autoencoder, or go on with one, on uint8 images (n, h, w, 3) by Recipe(steps, **recipe).

    Every save_every steps and at the end the averaged weights are measured on each set of held_out (name -> pictures)
    and saved to out with scores.csv, reconstructions.png and what resume needs. Returns the averaged model.
    stop: an object whose `requested` ends the training after a step, saved.
    """
    recipe, out = Recipe(steps, **recipe), Path(out)
    torch.manual_seed(recipe.seed)
    if isinstance(config, AutoencoderConfig):
        model = AutoencoderKL(config)
        _prepare(model)
    else:
        model = config.requires_grad_(True)
    stage = StageOne(model, images, recipe, device)
    if resume:
        stage.restore(out)
    else:
        (out / "scores.csv").unlink(missing_ok=True)
    with tqdm(desc="autoencoder", unit="step", total=steps, initial=stage.step) as bar:
        while stage.step < steps:
            losses = stage.advance()
            if stage.step % 10 == 0:
                bar.set_postfix(
                    {name: f"{loss.item():.4f}" for name, loss in losses.items()}, refresh=False
                )
            bar.update()
            stopping = stop is not None and stop.requested
            if stage.step % save_every == 0 or stage.step == steps or stopping:
                publish(stage.average.network, out, stage.step, held_out)
                stage.save(out)
            if stopping:
                break
    return stage.average.network


@torch.no_grad()
def _prepare(model: AutoencoderKL):
    """Start where learning is quick: docs/vae.md compares.

    ResNet blocks pass their input on, all other convolutions keep its size, and posteriors have a std of 0.05.
    """
    for name, layer in model.named_modules():
        if name.endswith("conv2"):
            layer.weight.zero_()
        elif isinstance(layer, nn.Conv2d) and not name.endswith("conv1"):
            layer.weight.normal_(std=layer.weight[0].numel() ** -0.5)
            layer.bias.zero_()
    last = model.quant_conv if model.config.use_quant_conv else model.encoder.conv_out
    last.weight[model.latent_channels :] *= 0.1
    last.bias[model.latent_channels :] = -6.0


def publish(vae: AutoencoderKL, out: Path, step: int, held_out: dict[str, np.ndarray]):
    """Write vae, a line of scores.csv and reconstructions.png to the folder out.

    The config's scaling_factor, which other programs multiply latents by, is the inverse of their measured deviation.
    """
    out.mkdir(parents=True, exist_ok=True)
    scores = {name: picture_scores(vae, pictures) for name, pictures in held_out.items()}
    with torch.no_grad():
        posteriors = [
            vae.encode(to_batch(pictures[:64]).to(vae.device)) for pictures in held_out.values()
        ]
    z = torch.cat([q.sample(torch.Generator().manual_seed(0)) for q in posteriors])
    vae.config.scaling_factor = round(1 / z.std().item(), 5)
    with quiet():  # a bar of transformers would tear that of the training
        vae.save_pretrained(out)
    kept = []
    if (out / "scores.csv").is_file():
        with open(out / "scores.csv", newline="", encoding="utf-8") as file:
            kept = [
                row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) < step
            ]
    with (
        replacing(out / "scores.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        columns = [f"{name}_{kind}" for name in scores for kind in ("mean", "pooled", "ssim")]
        now = [
            f"{v:.{d}f}"
            for s in scores.values()
            for v, d in ((s.mean, 2), (s.pooled, 2), (s.ssim, 4))
        ]
        csv.writer(file).writerows([["step", *columns], *kept, [step, *now]])
    rows = []
    for pictures in held_out.values():
        some = torch.as_tensor(pictures[:16])
        rows += [some, reconstruct(vae, some)]
    grid = rearrange(torch.stack(rows), "r n h w c -> (r h) (n w) c").numpy()
    Image.fromarray(grid).save(out / "reconstructions.png")
