"""Image to image and inpainting: noise to the middle of a run, and the known part at each step."""

import torch
from diffusers import UNet2DConditionModel
from diffusers import schedulers as all_schedulers

unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet")  # noqa: F821
g = torch.Generator().manual_seed(0)
text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=g)
init_latents = torch.randn(2, 4, 8, 8, generator=g)
noise = torch.randn(2, 4, 8, 8, generator=g)
mask = (torch.rand(2, 1, 8, 8, generator=g) > 0.5).float()
results, losses = [], []
for name in names:  # noqa: F821
    for strength in (0.5, 0.8):
        scheduler = getattr(all_schedulers, name).from_pretrained(root, subfolder="scheduler")  # noqa: F821
        num_inference_steps = 20
        scheduler.set_timesteps(num_inference_steps)
        init_timestep = min(int(num_inference_steps * strength), num_inference_steps)
        t_start = max(num_inference_steps - init_timestep, 0)
        timesteps = scheduler.timesteps[t_start * scheduler.order :]
        if hasattr(scheduler, "set_begin_index") and hasattr(scheduler, "begin_index"):
            scheduler.set_begin_index(t_start * scheduler.order)
        latents = scheduler.add_noise(init_latents, noise, timesteps[:1].repeat(2))
        for i, t in enumerate(timesteps):
            with torch.no_grad():
                noise_pred = unet(scheduler.scale_model_input(latents, t), t, text).sample
            latents = scheduler.step(noise_pred, t, latents, return_dict=False)[0]
            known = init_latents
            if i < len(timesteps) - 1:
                known = known_at(scheduler, init_latents, noise, timesteps[i + 1 : i + 2])  # noqa: F821
            latents = (1 - mask) * known + mask * latents
        results.append(latents)
