"""tinyldm: latent diffusion from scratch. Names are imported when they are first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from tinyldm.autoencoder.kl import AutoencoderKL
    from tinyldm.condition import Condition
    from tinyldm.diffusion.ddim import DDIM
    from tinyldm.diffusion.ddpm import DDPM
    from tinyldm.diffusion.dpm_solver import DPMSolver
    from tinyldm.diffusion.guidance import Guidance
    from tinyldm.diffusion.heun import Heun
    from tinyldm.diffusion.loss import training_loss
    from tinyldm.diffusion.sampler import sample
    from tinyldm.diffusion.schedule import NoiseSchedule
    from tinyldm.diffusion.unipc import UniPC
    from tinyldm.model import Model, load, train
    from tinyldm.nn.unet import UNet, UNetConfig
    from tinyldm.training.ema import EMA

__all__ = [
    "DDIM",
    "DDPM",
    "EMA",
    "AutoencoderKL",
    "Condition",
    "DPMSolver",
    "Guidance",
    "Heun",
    "Model",
    "NoiseSchedule",
    "UNet",
    "UNetConfig",
    "UniPC",
    "load",
    "sample",
    "train",
    "training_loss",
]
__version__ = "0.1.0"

_HOME = {
    "Condition": "condition",
    "NoiseSchedule": "diffusion.schedule",
    "DDPM": "diffusion.ddpm",
    "DDIM": "diffusion.ddim",
    "DPMSolver": "diffusion.dpm_solver",
    "UniPC": "diffusion.unipc",
    "Heun": "diffusion.heun",
    "Guidance": "diffusion.guidance",
    "sample": "diffusion.sampler",
    "training_loss": "diffusion.loss",
    "UNet": "nn.unet",
    "UNetConfig": "nn.unet",
    "AutoencoderKL": "autoencoder.kl",
    "EMA": "training.ema",
    "Model": "model",
    "load": "model",
    "train": "model",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'tinyldm' has no attribute {name!r}")
        value = getattr(import_module(f"tinyldm.{_HOME[name]}"), name)
        globals()[name] = value  # so that this function is not asked again
        return value


def __dir__() -> list[str]:
    return __all__
