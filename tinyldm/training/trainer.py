"""The training loop, which reads from top to bottom, and how it starts, saves and resumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tinyldm.condition import Condition
from tinyldm.data.latents import data_order
from tinyldm.device import runs_bfloat16
from tinyldm.diffusion.loss import Noised, draw_noise, drop_condition, prediction_error
from tinyldm.diffusion.sampler import Denoiser
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.methods.power_ema import LENGTHS
from tinyldm.nn.unet import UNet
from tinyldm.processes import ALONE, Processes
from tinyldm.randomness import torch_stream
from tinyldm.signals import StopRequest
from tinyldm.training.averages import PowerEMAs
from tinyldm.training.checkpoint import (
    AVERAGES,
    STATE,
    WEIGHTS,
    Progress,
    check_whole,
    drop_training_state,
    offering_the_one_before,
    read_config,
    save_checkpoint,
)
from tinyldm.training.ema import EMA
from tinyldm.training.learning_rate import learning_rate
from tinyldm.training.log import LossByNoise, RunLog
from tinyldm.training.optimizers import MOMENTS, make_optimizers
from tinyldm.training.settings import TrainSettings
from tinyldm.training.statistics import stored_latents
from tinyldm.training.timesteps import draw_timesteps
from tinyldm.training.weighting import EvenWeights
from tinyldm.typed import as_type
from tinyldm.weights import check_finite, check_fit, load_into, read_weights

MAX_SKIPPED = 20
"""This many infinite gradients in a row end the run."""

RESUMED = (STATE, WEIGHTS, AVERAGES)
"""The files of a checkpoint from which a training goes on; averages with --post-hoc-ema alone."""

NEVER = StopRequest()

Objective = Callable[[Denoiser, Noised, Condition | None, float], Tensor]


class Cache(Protocol):
    """What the trainer asks of its data: normalised latents and their conditions, by index.

    data.latents.LatentCache is one.

    mean, std, null: as the checkpoint keeps them
    longest:         the number of tokens of the longest condition
    """

    mean: Tensor
    std: Tensor

    @property
    def null(self) -> Condition: ...

    @property
    def longest(self) -> int: ...

    def __len__(self) -> int: ...

    def batch(
        self, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Condition]: ...


class Trainer:
    """Trains a network on a latent cache: optimiser, average, log, checkpoints.

    network:    any denoiser that is a torch module
    cache:      the normalised latents and their conditions
    run:        the folder to write to
    facts:      what the checkpoint says besides what the trainer knows: data, frozen models, and
                under "network" how to build it (training/network.py); for a UNet that is its config
    perceptual: a further term of the loss, (predicted, noised, prediction) -> scalar, with the
                weight and from the step that the settings say; see autoencoder/perceptual.py
    preview:    called with (averaged network, file to write) every sample_every steps, in the main
                process
    report:     called with the run folder after each checkpoint, in the main process
    check:      called before each checkpoint, in the main process; raises InputError if what was
                trained on turns out to be damaged
    objective:  in place of the error of the prediction: (denoiser, noised, condition, how much of
                the training is done, 0 to 1) -> the loss (b,) of each sample
    """

    def __init__(
        self,
        network: nn.Module,
        cache: Cache,
        settings: TrainSettings,
        run: Path,
        *,
        processes: Processes = ALONE,
        facts: Mapping[str, Any] | None = None,
        perceptual: Callable[[Tensor, Noised, str], Tensor] | None = None,
        preview: Callable[[nn.Module, Path], object] | None = None,
        report: Callable[[Path], object] | None = None,
        check: Callable[[], object] | None = None,
        objective: Objective | None = None,
    ):
        s = settings
        self.settings = settings
        self.cache = cache
        self.run = run
        self.processes = processes
        self.perceptual = perceptual
        self.preview = preview
        self.report = report
        self.check = check
        self.objective = objective
        self.facts = dict(facts or {})
        if isinstance(network, UNet):
            self.facts.setdefault("network", asdict(network.config))
        self.progress = Progress()
        self.null = cache.null.to(processes.device)
        self.micro_batch = s.micro_batch(processes.world)
        self.bfloat16 = runs_bfloat16(processes.device, s.precision)
        if self.bfloat16 and processes.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for what is left, as in Muon
        self.schedule = NoiseSchedule(s.schedule, zero_snr=s.zero_snr, shift=s.shift)
        self.loss_by_noise = LossByNoise(self.schedule, processes.device)
        self.loss_weights: EvenWeights | None = None
        if s.loss_weights == "even":
            self.loss_weights = EvenWeights(self.schedule.timesteps, processes.device)
        self.network = network.to(processes.device)
        self.ema = EMA(self.network, s.ema)
        self.power_emas = PowerEMAs(self.network, LENGTHS if s.post_hoc_ema else ())
        compiled: Any = torch.compile(network, dynamic=False) if s.compile else network
        self.denoiser: Any = processes.share(compiled)  # the same weights, gradients averaged
        self.optimizers = make_optimizers(network, s, processes)

    def fit(self, stop: StopRequest = NEVER) -> bool:
        """Train to max_steps, or until a stop is requested; either way the last step is saved.

        Returns whether the training is complete.
        """
        if self.processes.is_main:
            with RunLog(self.run, self.progress.step, self.settings.max_steps) as log:
                self.loop(log, stop)
        else:
            self.loop(None, stop)
        return self.progress.step == self.settings.max_steps

    def loop(self, log: RunLog | None, stop: StopRequest) -> None:
        """The loop: learning rate, gradient, clip, step, average, log, preview, save."""
        s, now = self.settings, self.progress
        skipped_in_a_row, stopping = 0, False
        while now.step < s.max_steps and not stopping:
            lr = learning_rate(now.step, s, now.plateau.cuts)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr * group["lr_factor"]

            mean_loss = self.gradient()
            norm_before = nn.utils.clip_grad_norm_(self.network.parameters(), s.clip)
            # the only place in a step where the host waits for a GPU
            loss, norm = torch.stack([mean_loss, norm_before]).tolist()
            if not math.isfinite(norm):  # the same in all processes: gradients are averaged
                now.leave_out()
                if self.loss_weights is not None:
                    self.loss_weights.forget()
                skipped_in_a_row += 1
                if skipped_in_a_row == MAX_SKIPPED:
                    raise InputError(
                        f"{self.run}: {MAX_SKIPPED} infinite gradients in a row at step "
                        f"{now.step}; earlier checkpoints are whole; "
                        "try a lower --lr or --precision float32"
                    )
                continue
            skipped_in_a_row = 0
            if self.loss_weights is not None:
                self.loss_weights.settle(self.processes)

            for optimizer in self.optimizers:
                optimizer.step()
            self.ema.update(self.network)
            self.power_emas.update(self.network)
            now.advance(loss, s.lr_every)

            last = now.step == s.max_steps
            if log is not None:
                log.row(now.step, loss=loss, lr=lr, grad_norm=norm, images=s.batch_size)
                if self.preview and (last or now.step % s.sample_every == 0):
                    self.check_finite()
                    file = self.run / "previews" / f"step-{now.step:07d}.png"
                    self.preview(self.ema.network, file)
                    log.pause()
            stopping = self.processes.any(stop.requested)
            if last or stopping or now.step % s.save_every == 0:
                self.save()
                if log is not None:
                    log.pause()

    def check_finite(self) -> None:
        """InputError if weights or moments are no longer finite, before they are shown or saved."""
        try:
            check_finite(self.training_state(), f"{self.run}: step {self.progress.step}")
        except InputError as error:
            raise InputError(f"{error}; earlier checkpoints are whole; try a lower --lr") from None

    def gradient(self) -> Tensor:
        """The gradient of one optimiser step, in `accumulate` parts.

        Returns the mean loss over all parts and processes, a scalar on the device.
        """
        s, device = self.settings, self.processes.device
        position = self.progress.step + self.progress.skipped
        self.network.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for part in range(s.accumulate):
            x0, condition, generator = self.batch(position * s.accumulate + part)
            with self.synchronised(part == s.accumulate - 1):
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
                    loss = self.loss(x0, condition, generator)
                (loss / s.accumulate).backward()
            total += loss.detach() / s.accumulate
        return self.processes.mean(total)

    def synchronised(self, last: bool) -> Any:
        """A context in which backward() averages gradients over processes, after the last part."""
        if last or self.processes.world == 1:
            return nullcontext()
        return self.denoiser.no_sync()

    def loss(self, x0: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """The loss of one part of a batch, a scalar: noise, predict, compare."""
        s = self.settings
        dropped = drop_condition(condition, self.null, s.cfg_drop, generator)
        t = None  # each as often as any other
        if s.t_sampling != "uniform":
            t = draw_timesteps(s.t_sampling, len(x0), self.schedule.timesteps, generator)
        noised = draw_noise(x0, self.schedule, generator, t=t)
        if self.objective is not None:
            done = self.progress.step / s.max_steps
            error = self.objective(self.denoiser, noised, dropped, done)
            self.loss_by_noise.add(noised.t, error)
            return error.mean()
        predicted = self.denoiser(noised.x_t, noised.t.float(), dropped)
        gamma = s.snr_gamma or None
        error = prediction_error(predicted, noised, s.prediction, self.schedule, snr_gamma=gamma)
        self.loss_by_noise.add(noised.t, error)
        if self.loss_weights is not None:
            error = error * self.loss_weights(noised.t, error)
        loss = error.mean()
        if s.perceptual and self.progress.step >= s.perceptual_from:
            assert self.perceptual is not None
            loss = loss + s.perceptual * self.perceptual(predicted, noised, s.prediction)
        return loss

    def batch(self, position: int) -> tuple[Tensor, Condition, torch.Generator]:
        """Batch number `position` of this process: x0, condition, the generator of its noise."""
        s, p = self.settings, self.processes
        indices = data_order(
            len(self.cache),
            self.micro_batch,
            seed=s.seed,
            rank=p.rank,
            world=p.world,
            step=position,
        )
        generator = torch_stream(s.seed, "noise", rank=p.rank, position=position)
        x0, condition = self.cache.batch(indices, generator, p.device)
        if s.compile and condition.tokens is not None:
            # one shape for all batches: each other one would be compiled again
            longest = max(self.cache.longest, condition.tokens.shape[1])
            condition = condition.padded(longest, masked=True)
        return x0, condition, generator

    def save(self) -> None:
        """Write the checkpoint of this step; InputError if its weights are not finite."""
        self.check_finite()
        if not self.processes.is_main:
            return
        if self.check:
            self.check()
        config = {
            "step": self.progress.step,
            "schedule": asdict(self.schedule),
            "prediction": self.settings.prediction,
            **self.facts,
            "settings": self.settings.to_dict(),
            "progress": asdict(self.progress),
            "ema_updates": self.ema.updates,
        }
        folder = self.run / "checkpoints" / f"step-{self.progress.step:07d}"
        weights = {
            "model": self.ema.network.state_dict(),
            "training": self.training_state(),
            "latents": stored_latents(self.cache.mean, self.cache.std, self.cache.null),
        }
        if self.power_emas.lengths:
            config["ema_lengths"] = self.power_emas.lengths
            weights["averages"] = self.power_emas.state()
        save_checkpoint(folder, config, weights)
        drop_training_state(self.run, folder)
        self.loss_by_noise.write(self.run)
        if self.report:
            self.report(self.run)

    def training_state(self) -> dict[str, Tensor]:
        """Raw weights and optimiser moments, by name."""
        names: dict[Tensor, str] = {p: name for name, p in self.network.named_parameters()}
        state = {f"weights.{name}": t for name, t in self.network.state_dict().items()}
        for optimizer in self.optimizers:
            for p, moments in optimizer.state.items():
                for kind, value in moments.items():
                    state[f"{kind}.{names[p]}"] = value
        if self.loss_weights is not None:
            state.update(self.loss_weights.state())
        return state

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint: weights, average, optimiser and progress as they were."""
        config = read_config(folder)
        with offering_the_one_before(folder):
            file = folder / STATE
            state = read_weights(file)
            check_fit(state, self.expected_state(state), file)
            check_whole(folder, config, *RESUMED)
            if self.loss_weights is not None:
                self.loss_weights.restore(state, file)
            averaged = folder / WEIGHTS
            load_into(self.ema.network, read_weights(averaged), averaged)
            self.power_emas.restore(folder / AVERAGES, config["ema_updates"])
        weights = {name: state[f"weights.{name}"] for name in self.network.state_dict()}
        load_into(self.network, weights, file)
        self.ema.count_from(config["ema_updates"])
        for name, p, optimizer in self.learned():
            kept = {}
            for kind in MOMENTS[type(optimizer)]:
                if f"{kind}.{name}" in state:
                    kept[kind] = state[f"{kind}.{name}"].to(p.device)
            if kept:
                optimizer.state[p] = kept
        self.progress = as_type(config["progress"], f"{config.file}: progress", Progress)

    def learned(self) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
        """The weights by name, each with the optimiser that it belongs to."""
        names = {p: name for name, p in self.network.named_parameters()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    yield names[p], p, optimizer

    def expected_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """training_state() as it is in a file: without moments of weights that had no gradient."""
        expected = {f"weights.{name}": t for name, t in self.network.state_dict().items()}
        for name, p, optimizer in self.learned():
            kinds = MOMENTS[type(optimizer)]
            if any(f"{kind}.{name}" in state for kind in kinds):
                for kind in kinds:
                    expected[f"{kind}.{name}"] = torch.zeros(()) if kind == "step" else p
        if self.loss_weights is not None:
            expected.update(self.loss_weights.state())
        return expected
