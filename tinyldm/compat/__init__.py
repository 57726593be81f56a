"""The library under the names of diffusers.

A script written for these classes runs after changing its import line. Only names, arguments,
folders and names of weights are translated; every number comes from diffusion, nn and autoencoder.
An argument that is not supported raises and names itself. docs/compat.md says where results differ
from diffusers', and why.
"""

from importlib import import_module

_HOME = {
    "DDPMScheduler": "schedulers.scheduling_ddpm",
    "DDIMScheduler": "schedulers.scheduling_ddim",
    "DPMSolverMultistepScheduler": "schedulers.scheduling_dpmsolver_multistep",
    "UNet2DConditionModel": "unet",
    "UNet2DModel": "unet",
    "AutoencoderKL": "vae",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    """Import a class when it is first asked for, so that one does not load the others."""
    if name not in _HOME:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; it gives {', '.join(_HOME)}"
        )
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
