"""The library under the names of diffusers.

A script written for these classes runs after changing its import line. Only names, arguments,
folders and names of weights are translated; every number comes from diffusion, nn and autoencoder.
An argument that is not supported raises and names itself. docs/compat.md says where results differ
from diffusers', and why.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from tinyldm.compat.attention import AttnProcessor, AttnProcessor2_0, XFormersAttnProcessor
    from tinyldm.compat.averaging import EMAModel, compute_snr
    from tinyldm.compat.environment import (
        CONFIG_NAME,
        SAFETENSORS_WEIGHTS_NAME,
        WEIGHTS_NAME,
        check_min_version,
        is_accelerate_available,
        is_accelerate_version,
        is_compiled_module,
        is_tensorboard_available,
        is_wandb_available,
        is_xformers_available,
        set_verbosity_error,
        set_verbosity_info,
        set_verbosity_warning,
    )
    from tinyldm.compat.optimization import (
        get_constant_schedule,
        get_constant_schedule_with_warmup,
        get_cosine_schedule_with_warmup,
        get_cosine_with_hard_restarts_schedule_with_warmup,
        get_linear_schedule_with_warmup,
        get_piecewise_constant_schedule,
        get_polynomial_decay_schedule_with_warmup,
        get_scheduler,
    )
    from tinyldm.compat.pictures import make_image_grid, numpy_to_pil, pt_to_pil
    from tinyldm.compat.pipelines import (
        DDIMPipeline,
        DDPMPipeline,
        DiffusionPipeline,
        ImagePipelineOutput,
    )
    from tinyldm.compat.schedulers.base import randn_tensor
    from tinyldm.compat.schedulers.scheduling_ddim import DDIMScheduler
    from tinyldm.compat.schedulers.scheduling_ddpm import DDPMScheduler
    from tinyldm.compat.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from tinyldm.compat.schedulers.scheduling_euler_ancestral_discrete import (
        EulerAncestralDiscreteScheduler,
    )
    from tinyldm.compat.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from tinyldm.compat.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )
    from tinyldm.compat.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
    from tinyldm.compat.schedulers.scheduling_pndm import PNDMScheduler
    from tinyldm.compat.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
    from tinyldm.compat.unet import UNet2DConditionModel, UNet2DModel
    from tinyldm.compat.vae import AutoencoderKL

_HOME = {
    "AttnProcessor": "attention",
    "AttnProcessor2_0": "attention",
    "AutoencoderKL": "vae",
    "CONFIG_NAME": "environment",
    "DDIMPipeline": "pipelines",
    "DDIMScheduler": "schedulers.scheduling_ddim",
    "DDPMPipeline": "pipelines",
    "DDPMScheduler": "schedulers.scheduling_ddpm",
    "DPMSolverMultistepScheduler": "schedulers.scheduling_dpmsolver_multistep",
    "DiffusionPipeline": "pipelines",
    "EMAModel": "averaging",
    "EulerAncestralDiscreteScheduler": "schedulers.scheduling_euler_ancestral_discrete",
    "EulerDiscreteScheduler": "schedulers.scheduling_euler_discrete",
    "FlowMatchEulerDiscreteScheduler": "schedulers.scheduling_flow_match_euler_discrete",
    "HeunDiscreteScheduler": "schedulers.scheduling_heun_discrete",
    "ImagePipelineOutput": "pipelines",
    "PNDMScheduler": "schedulers.scheduling_pndm",
    "SAFETENSORS_WEIGHTS_NAME": "environment",
    "UNet2DConditionModel": "unet",
    "UNet2DModel": "unet",
    "UniPCMultistepScheduler": "schedulers.scheduling_unipc_multistep",
    "WEIGHTS_NAME": "environment",
    "XFormersAttnProcessor": "attention",
    "check_min_version": "environment",
    "compute_snr": "averaging",
    "get_constant_schedule": "optimization",
    "get_constant_schedule_with_warmup": "optimization",
    "get_cosine_schedule_with_warmup": "optimization",
    "get_cosine_with_hard_restarts_schedule_with_warmup": "optimization",
    "get_linear_schedule_with_warmup": "optimization",
    "get_piecewise_constant_schedule": "optimization",
    "get_polynomial_decay_schedule_with_warmup": "optimization",
    "get_scheduler": "optimization",
    "is_accelerate_available": "environment",
    "is_accelerate_version": "environment",
    "is_compiled_module": "environment",
    "is_tensorboard_available": "environment",
    "is_wandb_available": "environment",
    "is_xformers_available": "environment",
    "make_image_grid": "pictures",
    "numpy_to_pil": "pictures",
    "pt_to_pil": "pictures",
    "randn_tensor": "schedulers.base",
    "set_verbosity_error": "environment",
    "set_verbosity_info": "environment",
    "set_verbosity_warning": "environment",
}
__all__ = [
    "CONFIG_NAME",
    "SAFETENSORS_WEIGHTS_NAME",
    "WEIGHTS_NAME",
    "AttnProcessor",
    "AttnProcessor2_0",
    "AutoencoderKL",
    "DDIMPipeline",
    "DDIMScheduler",
    "DDPMPipeline",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DiffusionPipeline",
    "EMAModel",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "ImagePipelineOutput",
    "PNDMScheduler",
    "UNet2DConditionModel",
    "UNet2DModel",
    "UniPCMultistepScheduler",
    "XFormersAttnProcessor",
    "check_min_version",
    "compute_snr",
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup",
    "get_linear_schedule_with_warmup",
    "get_piecewise_constant_schedule",
    "get_polynomial_decay_schedule_with_warmup",
    "get_scheduler",
    "is_accelerate_available",
    "is_accelerate_version",
    "is_compiled_module",
    "is_tensorboard_available",
    "is_wandb_available",
    "is_xformers_available",
    "make_image_grid",
    "numpy_to_pil",
    "pt_to_pil",
    "randn_tensor",
    "set_verbosity_error",
    "set_verbosity_info",
    "set_verbosity_warning",
]

_PUBLISHED_PATHS = (
    "models",
    "models.attention_processor",
    "models.autoencoder_kl",
    "models.autoencoders",
    "models.autoencoders.autoencoder_kl",
    "models.unet_2d",
    "models.unet_2d_condition",
    "models.unets",
    "models.unets.unet_2d",
    "models.unets.unet_2d_condition",
    "pipelines.ddim",
    "pipelines.ddim.pipeline_ddim",
    "pipelines.ddpm",
    "pipelines.ddpm.pipeline_ddpm",
    "pipelines.pipeline_utils",
    "training_utils",
    "utils",
    "utils.import_utils",
    "utils.logging",
    "utils.pil_utils",
    "utils.torch_utils",
)
"""Modules of diffusers that scripts import from and that have no file here: see _add_paths."""


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """Import a class when it is first asked for, so that one does not load the others."""
        if name not in _HOME:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}; it gives {', '.join(_HOME)}"
            )
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

    def _add_paths() -> None:
        """Make a module of each published path; each gives every name that this package gives.

        So `from tinyldm.compat.models.unets.unet_2d import UNet2DModel` needs no file of that name.
        """
        for path in _PUBLISHED_PATHS:
            module = ModuleType(f"{__name__}.{path}", f"diffusers.{path}: names of tinyldm.compat.")
            vars(module).update(__getattr__=__getattr__, __path__=[])
            sys.modules[module.__name__] = module
            parent, _, last = module.__name__.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent])[last] = module

    _add_paths()
