"""tinyldm: latent diffusion from scratch. Names are imported when they are first asked for."""

from importlib import import_module

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
}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'tinyldm' has no attribute {name!r}")
    value = getattr(import_module(f"tinyldm.{_HOME[name]}"), name)
    globals()[name] = value  # so that this function is not asked again
    return value


def __dir__():
    return __all__
