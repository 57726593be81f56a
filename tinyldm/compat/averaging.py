"""EMAModel, an average of a list of parameters, and compute_snr: diffusers.training_utils."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.compat.config import AVERAGING


class EMAModel:
    """Exponential moving averages of parameters, kept in a list of their own.

    At step k, counted from 1, the average moves by 1 - d_k towards the parameters. The first
    step copies; d_k = min(decay, k / (9 + k)) or, with use_ema_warmup, the smaller of decay and
    1 - (1 + k / inv_gamma)^-power; never less than min_decay.

    model_cls, model_config: of the model that save_pretrained writes
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        decay: float = 0.9999,
        min_decay: float = 0.0,
        update_after_step: int = 0,
        use_ema_warmup: bool = False,
        inv_gamma: float = 1.0,
        power: float = 2 / 3,
        foreach: bool = False,
        model_cls: Any = None,
        model_config: Any = None,
    ):
        if isinstance(parameters, nn.Module):
            raise TypeError("EMAModel takes parameters, such as model.parameters(), not a model")
        self.shadow_params = [p.detach().clone() for p in parameters]
        self.temp_stored_params: list[Tensor] | None = None
        self.decay = decay
        self.min_decay = min_decay
        self.update_after_step = update_after_step
        self.use_ema_warmup = use_ema_warmup
        self.inv_gamma = inv_gamma
        self.power = power
        self.optimization_step = 0
        self.cur_decay_value: float | None = None
        self.foreach = foreach  # which of two ways to compute the same; here there is one
        self.model_cls = model_cls
        self.model_config = model_config

    def get_decay(self, optimization_step: int) -> float:
        """d_k of this many steps."""
        k = max(0, optimization_step - self.update_after_step - 1)
        if k == 0:
            return 0.0
        rising = (1 + k) / (10 + k)
        if self.use_ema_warmup:
            rising = 1 - (1 + k / self.inv_gamma) ** -self.power
        return max(min(rising, self.decay), self.min_decay)

    @torch.no_grad()
    def step(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take the parameters, after a step of the optimiser, into the average.

        Those that are not trained are copied.
        """
        self.optimization_step += 1
        decay = self.get_decay(self.optimization_step)
        self.cur_decay_value = decay
        for average, parameter in zip(self.shadow_params, parameters, strict=True):
            new = parameter.to(average)
            average.lerp_(new, 1 - decay if parameter.requires_grad else 1.0)

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[nn.Parameter]) -> None:
        """Write the averages into parameters."""
        _copy(self.shadow_params, parameters)

    def store(self, parameters: Iterable[nn.Parameter]) -> None:
        """Keep a copy of the parameters, for restore."""
        self.temp_stored_params = [p.detach().cpu().clone() for p in parameters]

    def restore(self, parameters: Iterable[nn.Parameter]) -> None:
        """Write the parameters that store kept back."""
        if self.temp_stored_params is None:
            raise RuntimeError("EMAModel: nothing to restore; call store before copy_to")
        _copy(self.temp_stored_params, parameters)
        self.temp_stored_params = None

    def to(self, device=None, dtype=None, non_blocking: bool = False) -> None:
        """Move the averages."""
        self.shadow_params = [p.to(device, dtype, non_blocking) for p in self.shadow_params]

    def pin_memory(self) -> None:
        """Move the averages to pinned memory."""
        self.shadow_params = [p.pin_memory() for p in self.shadow_params]

    def state_dict(self) -> dict[str, Any]:
        """The settings, the number of steps and the averages, not copied."""
        settings = {name: getattr(self, name) for name in sorted(AVERAGING)}
        return {**settings, "shadow_params": self.shadow_params}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state_dict; what is not in it stays."""
        unknown = state_dict.keys() - AVERAGING - {"shadow_params"}
        if unknown:
            raise ValueError(f"EMAModel: no {min(unknown)!r} in a state is known")
        if not 0 <= state_dict.get("decay", self.decay) <= 1:
            raise ValueError(f"decay is {state_dict['decay']}, expected 0 to 1")
        vars(self).update({name: v for name, v in state_dict.items() if name in AVERAGING})
        averages = state_dict.get("shadow_params")
        if averages is not None:
            self.shadow_params = [p.detach().clone() for p in averages]

    @classmethod
    def from_pretrained(cls, path: str | Path, model_cls: Any, foreach: bool = False) -> EMAModel:
        """The average that save_pretrained wrote, here or in diffusers."""
        model = model_cls.from_pretrained(path)
        made = cls(
            model.parameters(), foreach=foreach, model_cls=model_cls, model_config=model.config
        )
        made.load_state_dict({k: v for k, v in model.config.items() if k in AVERAGING})
        return made

    def save_pretrained(self, path: str | Path) -> None:
        """Write a model with the averages as its weights, and the settings in its config."""
        if self.model_cls is None or self.model_config is None:
            raise ValueError("EMAModel: save_pretrained needs model_cls and model_config")
        state = self.state_dict()
        del state["shadow_params"]
        model = self.model_cls.from_config(self.model_config)
        model.register_to_config(**state)
        self.copy_to(model.parameters())
        model.save_pretrained(path)


@torch.no_grad()
def _copy(weights: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    for weight, parameter in zip(weights, parameters, strict=True):
        parameter.copy_(weight)


def compute_snr(noise_scheduler: Any, timesteps: Tensor) -> Tensor:
    """alpha_bar / (1 - alpha_bar) at each timestep (b,), as min-SNR (2303.09556) needs it."""
    alpha_bar = noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alpha_bar / (1 - alpha_bar)
