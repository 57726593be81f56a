"""DDIM inversion as the course writes it, from alphas_cumprod, and the way back from its end."""

import torch
from diffusers import DDIMScheduler, UNet2DModel

model = UNet2DModel.from_pretrained(f"{root}/pixels").eval()  # noqa: F821
scheduler = DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear")
num_inference_steps = 50
scheduler.set_timesteps(num_inference_steps)
g = torch.Generator().manual_seed(0)
latents = torch.rand(2, 3, 8, 8, generator=g) * 2 - 1
labels = torch.tensor([1, 3])
intermediate = []
timesteps = list(reversed(scheduler.timesteps))
for i in range(1, num_inference_steps):
    t = timesteps[i]
    with torch.no_grad():
        noise_pred = model(scheduler.scale_model_input(latents, t), t, labels).sample
    current_t = max(0, t.item() - (1000 // num_inference_steps))
    next_t = t
    alpha_t = scheduler.alphas_cumprod[current_t]
    alpha_t_next = scheduler.alphas_cumprod[next_t]
    latents = (latents - (1 - alpha_t).sqrt() * noise_pred) * (
        alpha_t_next.sqrt() / alpha_t.sqrt()
    ) + (1 - alpha_t_next).sqrt() * noise_pred
    intermediate.append(latents)
losses, results = [], [intermediate[-1]]
start_step = 10
latents = intermediate[-(start_step + 1)]
for i in range(start_step, num_inference_steps):
    t = scheduler.timesteps[i]
    with torch.no_grad():
        noise_pred = model(latents, t, labels).sample
    prev_t = max(1, t.item() - (1000 // num_inference_steps))
    alpha_t, alpha_t_prev = scheduler.alphas_cumprod[t.item()], scheduler.alphas_cumprod[prev_t]
    predicted_x0 = (latents - (1 - alpha_t).sqrt() * noise_pred) / alpha_t.sqrt()
    latents = alpha_t_prev.sqrt() * predicted_x0 + (1 - alpha_t_prev).sqrt() * noise_pred
results.append(latents)
latents = intermediate[-(start_step + 1)]
for t in scheduler.timesteps[start_step:]:
    with torch.no_grad():
        noise_pred = model(latents, t, labels).sample
    latents = scheduler.step(noise_pred, t, latents).prev_sample
results.append(latents)
