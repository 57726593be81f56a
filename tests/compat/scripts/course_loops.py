"""The notebooks of the diffusion course, units 1 and 2: loops by hand, DDIM, guidance by a loss."""

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import make_image_grid, numpy_to_pil

model = UNet2DModel(
    sample_size=8,
    in_channels=3,
    out_channels=3,
    layers_per_block=2,
    block_out_channels=(8, 16, 16),
    down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
)
start(model)  # noqa: F821
noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
torch.manual_seed(0)
losses, results = [], []
for _ in range(4):
    clean_images = torch.rand(4, 3, 8, 8) * 2 - 1
    noise = torch.randn_like(clean_images)
    timesteps = torch.randint(0, noise_scheduler.num_train_timesteps, (4,)).long()
    noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
    noise_pred = model(noisy_images, timesteps, return_dict=False)[0]
    loss = F.mse_loss(noise_pred, noise)
    loss.backward()
    losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad()

image_pipe = DDPMPipeline(unet=model, scheduler=noise_scheduler)
image_pipe.set_progress_bar_config(disable=True)
noise_scheduler.set_timesteps(12)
sample = torch.randn(2, 3, 8, 8)
for _i, t in enumerate(noise_scheduler.timesteps):
    with torch.no_grad():
        residual = model(sample, t).sample
    sample = noise_scheduler.step(residual, t, sample).prev_sample
results.append(sample)
pictures = numpy_to_pil((sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
grid = make_image_grid(pictures, rows=1, cols=2)
assert grid.size == (16, 8)

# unit 2: a faster scheduler for the same network, and guidance by the gradient of a loss on x0
scheduler = DDIMScheduler.from_config(image_pipe.scheduler.config)
scheduler.set_timesteps(num_inference_steps=20)
image_pipe.scheduler = scheduler
x = torch.randn(2, 3, 8, 8)
for t in scheduler.timesteps:
    x = x.detach().requires_grad_()
    model_input = scheduler.scale_model_input(x, t)
    noise_pred = image_pipe.unet(model_input, t)["sample"]
    x0 = scheduler.step(noise_pred, t, x).pred_original_sample
    loss = (x0 - torch.tensor([0.1, 0.9, 0.5]).view(1, 3, 1, 1)).abs().mean() * 40
    cond_grad = -torch.autograd.grad(loss, x)[0]
    x = x.detach() + cond_grad * 0.1
    x = scheduler.step(noise_pred.detach(), t, x).prev_sample
results.append(x)
for eta in (0.0, 0.5):
    x = torch.randn(2, 3, 8, 8)
    for t in scheduler.timesteps:
        with torch.no_grad():
            noise_pred = model(x, t).sample
        x = scheduler.step(noise_pred, t, x, eta=eta).prev_sample
    results.append(x)
