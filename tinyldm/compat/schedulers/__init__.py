"""The schedulers, under diffusers' paths; Scheduler, which they share, is in base."""

from typing import TYPE_CHECKING

from tinyldm import compat

if TYPE_CHECKING:
    from tinyldm.compat import DDIMScheduler as DDIMScheduler
    from tinyldm.compat import DDPMScheduler as DDPMScheduler
    from tinyldm.compat import DPMSolverMultistepScheduler as DPMSolverMultistepScheduler
    from tinyldm.compat import EulerAncestralDiscreteScheduler as EulerAncestralDiscreteScheduler
    from tinyldm.compat import EulerDiscreteScheduler as EulerDiscreteScheduler
    from tinyldm.compat import FlowMatchEulerDiscreteScheduler as FlowMatchEulerDiscreteScheduler
    from tinyldm.compat import HeunDiscreteScheduler as HeunDiscreteScheduler
    from tinyldm.compat import PNDMScheduler as PNDMScheduler
    from tinyldm.compat import UniPCMultistepScheduler as UniPCMultistepScheduler
else:
    __getattr__ = compat.__getattr__
