"""Stable Diffusion written out: guidance, a scheduler read under the name of another, decoding."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers import schedulers as all_schedulers

vae = AutoencoderKL.from_pretrained(root, subfolder="vae", use_safetensors=True)  # noqa: F821
unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet")  # noqa: F821
g = torch.Generator().manual_seed(0)
text_embeddings = torch.randn(4, 5, unet.config.cross_attention_dim, generator=g)
guidance_scale, results, losses = 3.0, [], []
for name in names:  # noqa: F821
    scheduler = getattr(all_schedulers, name).from_pretrained(root, subfolder="scheduler")  # noqa: F821
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn((2, unet.config.in_channels, 8, 8), generator=generator)
    latents = latents * scheduler.init_noise_sigma
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps:
        latent_model_input = torch.cat([latents] * 2)
        latent_model_input = scheduler.scale_model_input(latent_model_input, timestep=t)
        with torch.no_grad():
            noise_pred = unet(latent_model_input, t, encoder_hidden_states=text_embeddings).sample
        noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
        noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
        more = {"generator": generator} if "Ancestral" in name else {}
        latents = scheduler.step(noise_pred, t, latents, **more).prev_sample
    results.append(latents)
    with torch.no_grad():
        image = vae.decode(latents / vae.config.scaling_factor).sample
    results.append((image / 2 + 0.5).clamp(0, 1))
