"""What train_text_to_image.py does with the networks: offset noise, min-SNR, EMA, checkpointing."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_snr
from diffusers.utils.import_utils import is_xformers_available

noise_scheduler = DDPMScheduler.from_pretrained(root, subfolder="scheduler")  # noqa: F821
vae = AutoencoderKL.from_pretrained(root, subfolder="vae")  # noqa: F821
unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet")  # noqa: F821
ema_unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet")  # noqa: F821
vae.requires_grad_(False)
unet.train()
ema_unet = EMAModel(
    ema_unet.parameters(), model_cls=UNet2DConditionModel, model_config=ema_unet.config
)
if is_xformers_available():
    unet.enable_xformers_memory_efficient_attention()
unet.set_attn_processor(AttnProcessor2_0())
unet.enable_gradient_checkpointing()
optimizer = torch.optim.SGD(unet.parameters(), lr=1e-2)
lr_scheduler = get_scheduler(
    "constant_with_warmup", optimizer=optimizer, num_warmup_steps=3, num_training_steps=10
)
noise_scheduler.register_to_config(prediction_type="v_prediction")
torch.manual_seed(0)
losses, results = [], []
for step in range(4):
    pixel_values = torch.rand(3, 3, 16, 16) * 2 - 1
    encoder_hidden_states = torch.randn(3, 5, unet.config.cross_attention_dim)
    latents = vae.encode(pixel_values).latent_dist.sample(torch.Generator().manual_seed(step))
    latents = latents * vae.config.scaling_factor
    noise = torch.randn(latents.shape)
    noise += 0.1 * torch.randn((latents.shape[0], latents.shape[1], 1, 1))
    timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (3,)).long()
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    if noise_scheduler.config.prediction_type == "epsilon":
        target = noise
    elif noise_scheduler.config.prediction_type == "v_prediction":
        target = noise_scheduler.get_velocity(latents, noise, timesteps)
    model_pred = unet(noisy_latents, timesteps, encoder_hidden_states, return_dict=False)[0]
    snr = compute_snr(noise_scheduler, timesteps)
    mse_loss_weights = torch.stack([snr, 5.0 * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
    if noise_scheduler.config.prediction_type == "epsilon":
        mse_loss_weights = mse_loss_weights / snr
    elif noise_scheduler.config.prediction_type == "v_prediction":
        mse_loss_weights = mse_loss_weights / (snr + 1)
    loss = F.mse_loss(model_pred.float(), target.float(), reduction="none")
    loss = loss.mean(dim=list(range(1, len(loss.shape)))) * mse_loss_weights
    loss = loss.mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimizer.step()
    lr_scheduler.step()
    optimizer.zero_grad()
    ema_unet.step(unet.parameters())
    losses += [loss.item(), lr_scheduler.get_last_lr()[0], *snr.log().tolist()]
ema_unet.save_pretrained(f"{root}/unet_ema")  # noqa: F821
ema_unet.copy_to(unet.parameters())
unet.save_pretrained(f"{root}/trained", push_to_hub=False)  # noqa: F821
noise_scheduler.save_pretrained(f"{root}/trained_scheduler", push_to_hub=False)  # noqa: F821

unet = UNet2DConditionModel.from_pretrained(f"{root}/unet_ema")  # noqa: F821
unet.register_to_config(sample_size=16)
assert unet.config.sample_size == 16
x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
with torch.no_grad():
    results.append(unet(x, t, encoder_hidden_states[:2]).sample)

# instruct-pix2pix: a wider first layer in the place of the old one
with torch.no_grad():
    unet.register_to_config(in_channels=8)
    new_conv_in = torch.nn.Conv2d(8, unet.conv_in.out_channels, 3, padding=1)
    new_conv_in.weight.zero_()
    new_conv_in.weight[:, :4].copy_(unet.conv_in.weight)
    new_conv_in.bias.copy_(unet.conv_in.bias)
    unet.conv_in = new_conv_in
    results.append(unet(torch.cat([x, x], dim=1), t, encoder_hidden_states[:2]).sample)
    unet.save_pretrained(f"{root}/wider")  # noqa: F821
    wider = UNet2DConditionModel.from_pretrained(f"{root}/wider")  # noqa: F821
    results.append(wider(torch.cat([x, x], dim=1), t, encoder_hidden_states[:2]).sample)
