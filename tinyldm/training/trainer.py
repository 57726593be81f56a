"""Training: one loop that reads top to bottom, and what it needs to begin, to be watched and to go on."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.data.latents import LatentCache, data_order
from tinyldm.device import autocast
from tinyldm.diffusion.loss import training_loss
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.nn.presets import PRESETS
from tinyldm.nn.unet import UNet
from tinyldm.stage_one.losses import decoder_features, feature_distance
from tinyldm.training.checkpoint import (
    drop_training_state,
    load_weights,
    read_config,
    read_tensors,
    save_checkpoint,
)
from tinyldm.training.ema import EMA
from tinyldm.training.learning_rate import Plateau, learning_rate
from tinyldm.training.log import RunLog
from tinyldm.training.processes import Workers
from tinyldm.training.settings import TrainSettings
from tinyldm.training.signals import StopRequest

MAX_SKIPPED = 20
"""So many infinite gradients in a row end the run."""


@dataclass
class Progress:
    """How far a run is. skipped: batches left out for an infinite gradient, all in all."""

    step: int = 0
    skipped: int = 0
    plateau: Plateau = field(default_factory=Plateau)


class Trainer:
    """The network, its optimiser and its average, training on a latent cache.

    cache:   the normalised latents and their conditions (data/latents.py)
    facts:   what the checkpoint says of data and frozen models, besides what the trainer knows itself
    preview: called with (trainer, step) every sample_every steps in the main process, or None
    vae:     the frozen autoencoder of the latents, of use to --perceptual alone
    report:  an attribute, called with the run folder after every checkpoint in the main process, or None
    """

    def __init__(
        self,
        settings: TrainSettings,
        cache: LatentCache,
        run: Path,
        workers: Workers = Workers(),
        facts: dict | None = None,
        preview=None,
        vae=None,
    ):
        s, self.vae = settings, vae
        self.settings, self.cache, self.run, self.workers = s, cache, run, workers
        self.facts, self.preview, self.report, self.progress = (
            facts or {},
            preview,
            None,
            Progress(),
        )
        parts = s.accumulate * workers.world
        if s.batch_size % parts:
            raise InputError(
                f"--batch-size {s.batch_size}: expected a multiple of {parts} "
                f"(--accumulate {s.accumulate} x {workers.world} processes)"
            )
        self.micro_batch = s.batch_size // parts
        self.schedule = NoiseSchedule(s.schedule, zero_snr=s.zero_snr, shift=s.shift)
        torch.manual_seed(s.seed)
        network = UNet(network_config(s.preset, cache)).to(workers.device)
        self.network, self.ema = network, EMA(network, s.ema)
        self.parallel = workers.share(
            torch.compile(network, dynamic=False) if s.compile else network
        )
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [
            p for p in network.parameters() if p.ndim <= 1
        ]  # norms and biases are not decayed
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
            lr=s.lr,
            betas=(0.9, 0.99),
            weight_decay=s.weight_decay,
            fused=True,
        )

    def fit(self, stop: StopRequest = StopRequest()) -> bool:
        """Train to max_steps, or until stop is requested; either way the last step is saved. True if complete."""
        with (
            RunLog(self.run, self.progress.step, self.settings.max_steps)
            if self.workers.is_main
            else nullcontext() as log
        ):
            self.loop(log, stop)
        return self.progress.step == self.settings.max_steps

    def loop(self, log: RunLog | None, stop: StopRequest) -> None:
        """The loop of fit(): learning rate, gradient, clip, step, average, log, preview, save."""
        s, now = self.settings, self.progress
        in_a_row, stopping = 0, False
        while now.step < s.max_steps and not stopping:
            lr = learning_rate(now.step, s, now.plateau.cuts)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            loss = self.gradient()
            grad_norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip))
            if not math.isfinite(grad_norm):  # the same in all processes: gradients are averaged
                now.skipped, in_a_row = now.skipped + 1, in_a_row + 1
                if in_a_row == MAX_SKIPPED:
                    raise InputError(
                        f"{self.run}: {MAX_SKIPPED} infinite gradients in a row at step {now.step}; "
                        "earlier checkpoints are whole; try a lower --lr or --precision float32"
                    )
                continue
            in_a_row = 0
            self.optimizer.step()
            self.ema.update(self.network)
            now.step += 1
            now.plateau.observe(loss, s.lr_every)
            if log:
                log.row(now.step, loss, lr, grad_norm, s.batch_size)
            if log and self.preview and (now.step % s.sample_every == 0 or now.step == s.max_steps):
                self.preview(self, now.step)
                log.pause()
            stopping = self.workers.any(stop.requested)
            if now.step % s.save_every == 0 or now.step == s.max_steps or stopping:
                self.save()
                if log:
                    log.pause()

    def gradient(self) -> float:
        """The gradient of one optimiser step, in `accumulate` parts; returns the mean loss over all processes."""
        s, position = self.settings, self.progress.step + self.progress.skipped
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.workers.device)
        for part in range(s.accumulate):
            x0, condition, generator = self.batch(position * s.accumulate + part)
            last = part == s.accumulate - 1
            with nullcontext() if last or self.workers.world == 1 else self.parallel.no_sync():
                with autocast(self.workers.device, s.precision):
                    seen = {}
                    loss = training_loss(
                        partial(self.recorded, seen),
                        x0,
                        condition,
                        self.schedule,
                        s.prediction,
                        snr_gamma=s.snr_gamma or None,
                        null=self.cache.null,
                        cfg_drop=s.cfg_drop,
                        generator=generator,
                    ).mean()
                    if s.perceptual and self.progress.step >= s.perceptual_from:
                        loss = loss + s.perceptual * self.perceptual(x0, **seen)
                (loss / s.accumulate).backward()
            total += loss.detach() / s.accumulate
        return float(self.workers.mean(total))

    def recorded(self, seen: dict, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's prediction; what it was made of is entered in seen."""
        seen |= {"x_t": x_t, "t": t, "predicted": self.parallel(x_t, t, condition)}
        return seen["predicted"]

    def perceptual(self, x0: Tensor, x_t: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
        """How far what the frozen decoder sees of the estimates of x0 is from what it sees of x0 (2411.04873).

        Only samples with more signal than noise count: of others the estimate is a blur, and rightly so.
        """
        level = self.schedule.level(t).like(x0)
        guess, _ = to_x0_eps(predicted.float(), x_t, level, self.settings.prediction)
        clear = (level.alpha > level.sigma).flatten()
        if not clear.any():
            return predicted.sum() * 0
        std, mean = self.cache.std.to(x0.device), self.cache.mean.to(x0.device)
        with torch.no_grad():
            wanted = decoder_features(self.vae, x0[clear] * std + mean)
        return (
            feature_distance(decoder_features(self.vae, guess[clear] * std + mean), wanted)
            * clear.float().mean()
        )

    def batch(self, position: int) -> tuple[Tensor, Condition, torch.Generator]:
        """Part `position` of this process's data, and the generator of its noise: functions of (seed, rank, position)."""
        s, w = self.settings, self.workers
        indices = data_order(len(self.cache), self.micro_batch, s.seed, w.rank, w.world, position)
        generator = torch.Generator().manual_seed(hash((s.seed, w.rank, position)) % 2**63)
        x0, condition = self.cache.batch(indices, generator, w.device)
        if (
            s.compile and condition.tokens is not None
        ):  # one shape for all batches: each other one would compile anew
            condition = condition.padded(
                max(self.cache.longest, condition.tokens.shape[1]), masked=True
            )
        return x0, condition, generator

    def save(self):
        """Write the checkpoint of this step."""
        if not self.workers.is_main:
            return
        names = {p: name for name, p in self.network.named_parameters()}
        training = {f"weights.{name}": t for name, t in self.network.state_dict().items()}
        for p, state in self.optimizer.state.items():
            training |= {f"{key}.{names[p]}": value for key, value in state.items()}
        null = {f"null.{name}": part for name, part in self.cache.null.parts().items()}
        config = {
            "step": self.progress.step,
            "network": self.network.config.to_dict(),
            "schedule": self.schedule.to_dict(),
            "prediction": self.settings.prediction,
            **self.facts,
            "settings": self.settings.to_dict(),
            "progress": asdict(self.progress),
            "ema_updates": self.ema.updates,
        }
        folder = self.run / "checkpoints" / f"step-{self.progress.step:07d}"
        save_checkpoint(
            folder,
            config,
            {
                "model": self.ema.network.state_dict(),
                "training": training,
                "latents": {"mean": self.cache.mean, "std": self.cache.std, **null},
            },
        )
        drop_training_state(self.run)
        if self.report:
            self.report(self.run)

    def restore(self, folder: Path):
        """Go on from a checkpoint: weights, average, optimiser and progress as they were."""
        config, file = read_config(folder), folder / "training.safetensors"
        tensors = read_tensors(file)

        def part(key):
            return {
                n.removeprefix(f"{key}."): t for n, t in tensors.items() if n.startswith(f"{key}.")
            }

        load_weights(self.network, part("weights"), file)
        load_weights(
            self.ema.network,
            read_tensors(folder / "model.safetensors"),
            folder / "model.safetensors",
        )
        self.ema.updates = config["ema_updates"]
        moments = {key: part(key) for key in ("step", "exp_avg", "exp_avg_sq")}
        for name, p in self.network.named_parameters():
            if name in moments["step"]:
                self.optimizer.state[p] = {
                    key: tensors[name].to(p.device) for key, tensors in moments.items()
                }
        saved = config["progress"]
        self.progress = Progress(**{**saved, "plateau": Plateau(**saved["plateau"])})


def network_config(preset: str, cache: LatentCache):
    """The preset's network, its input fitted to the data and to the parts of their conditions."""
    channels, null, config = cache.mean.shape[0], cache.null, PRESETS[preset]
    widths = {name: part.shape[-3 if name == "maps" else -1] for name, part in null.parts().items()}
    kinds = (*config.attention, config.middle)
    if null.tokens is None:  # nothing to cross to
        kinds = ["self" if kind == "cross" else kind for kind in kinds]
    return replace(
        config,
        in_channels=channels,
        out_channels=channels,
        attention=tuple(kinds[:-1]),
        middle=kinds[-1],
        token_dim=widths.get("tokens"),
        vector_dim=widths.get("vector"),
        map_channels=widths.get("maps", 0),
    )
