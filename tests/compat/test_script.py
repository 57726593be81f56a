"""Scripts written for diffusers run with another import line, and give the same."""

import runpy

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__")

SCRIPT = """
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel

vae = AutoencoderKL.from_pretrained(root, subfolder="vae")
unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet")
noise_scheduler = DDPMScheduler.from_pretrained(root, subfolder="scheduler")
vae.requires_grad_(False)
unet.train()
g = torch.Generator().manual_seed(0)
images = torch.rand(4, 3, 16, 16, generator=g) * 2 - 1
text = torch.randn(4, 5, unet.config.cross_attention_dim, generator=g)
null = torch.zeros_like(text)

optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
losses = []
for step in range(4):
    latents = vae.encode(images).latent_dist.sample(generator=g) * vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=g)
    timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (len(latents),), generator=g).long()
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    model_pred = unet(noisy_latents, timesteps, encoder_hidden_states=text).sample
    if noise_scheduler.config.prediction_type == "epsilon":
        target = noise
    elif noise_scheduler.config.prediction_type == "v_prediction":
        target = noise_scheduler.get_velocity(latents, noise, timesteps)
    loss = F.mse_loss(model_pred.float(), target.float())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
unet.save_pretrained(f"{root}/trained")
noise_scheduler.save_pretrained(f"{root}/trained_scheduler")

unet = UNet2DConditionModel.from_pretrained(f"{root}/trained")
results = []
for kind in (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler):
    scheduler = kind.from_config(noise_scheduler.config)
    scheduler.set_timesteps(10)
    latents = torch.randn((2, unet.config.in_channels, 8, 8), generator=g) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        latent_model_input = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        with torch.no_grad():
            noise_pred = unet(latent_model_input, t, encoder_hidden_states=torch.cat([null[:2], text[:2]])).sample
        noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
        noise_pred = noise_pred_uncond + 2.0 * (noise_pred_text - noise_pred_uncond)
        latents = scheduler.step(noise_pred, t, latents, generator=g).prev_sample if kind is DDPMScheduler else \\
            scheduler.step(noise_pred, t, latents, return_dict=False)[0]
    with torch.no_grad():
        image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    results.append((image / 2 + 0.5).clamp(0, 1))
"""  # noqa: E501 - as people write them

# a network on pixels that is told a class: no autoencoder, clipping, images from noised images
CLASSES = """
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

model = UNet2DModel.from_pretrained(f"{root}/pixels")
assert model.config["num_class_embeds"] == model.config.num_class_embeds == 5 and model.dtype == torch.float32
noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
model.train()
torch.manual_seed(0)
losses = []
for step in range(3):
    clean = torch.rand(4, 3, 8, 8) * 2 - 1
    labels = torch.randint(0, 5, (4,))
    noise = torch.randn(clean.shape)
    timesteps = torch.randint(0, len(noise_scheduler), (4,), dtype=torch.int64)
    noisy = noise_scheduler.add_noise(clean, noise, timesteps)
    noise_pred = model(noisy, timesteps, labels, return_dict=False)[0]
    ab = noise_scheduler.alphas_cumprod[timesteps]
    weight = (ab / (1 - ab)).clamp(max=5) / (ab / (1 - ab))
    loss = (weight * F.mse_loss(noise_pred, noise, reduction="none").mean([1, 2, 3])).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    guess = noise_scheduler.step(noise_pred[:1].detach(), int(timesteps[0]), noisy[:1]).pred_original_sample
    losses += [loss.item(), guess.mean().item()]
model.eval()
model.save_pretrained(f"{root}/trained", safe_serialization=True)
noise_scheduler.save_pretrained(f"{root}/scheduler")

results = []
for kind, options in ((DDPMScheduler, {}), (DDIMScheduler, {}), (DDIMScheduler, {"eta": 0.7}),
                      (DDIMScheduler, {"use_clipped_model_output": True})):
    scheduler = kind.from_pretrained(f"{root}/scheduler")
    scheduler.set_timesteps(num_inference_steps=20, device="cpu")
    generator = torch.manual_seed(5)
    image = torch.randn((2, model.config.in_channels, 8, 8), generator=generator)
    for i, t in enumerate(scheduler.timesteps):
        with torch.inference_mode():
            residual = model(image, t, class_labels=torch.tensor([1, 4])).sample
        out = scheduler.step(model_output=residual, timestep=t, sample=image, generator=generator, **options)
        image = out.prev_sample
    results += [image, out.pred_original_sample]
    later = scheduler.timesteps[12:]
    image = scheduler.add_noise(clean[:2], torch.ones(2, 3, 8, 8) / 3, later[:1])
    for t in later:
        with torch.no_grad():
            residual = model(image, t, torch.tensor([0, 2]))[0]
        image = scheduler.step(residual, t, image, generator=generator, **options)[0]
    results.append(image)
"""  # noqa: E501 - as people write them
PIXELS = dict(
    sample_size=8,
    block_out_channels=(16, 32),
    norm_num_groups=8,
    num_class_embeds=5,
    attention_head_dim=8,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
CONDITIONAL = dict(
    sample_size=8,
    block_out_channels=(16, 32),
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=12,
    down_block_types=("CrossAttnDownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=4,
)
AUTOENCODER = dict(
    block_out_channels=(16, 16),
    norm_num_groups=8,
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    sample_size=16,
)


def ran_with_both(script, made, folder):
    """What a script leaves behind when it runs with diffusers, and with its import line changed."""
    ran = []
    for library in ("diffusers", "tinyldm.compat"):
        root = folder / library
        for name, part in made.items():
            part.save_pretrained(root / name)
        (root / "script.py").write_text(
            script.replace("from diffusers import", f"from {library} import")
        )
        ran.append(runpy.run_path(str(root / "script.py"), {"root": str(root)}))
    return ran


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_training_and_sampling(tmp_path, prediction):
    torch.manual_seed(0)
    made = {
        "unet": diffusers.UNet2DConditionModel(**CONDITIONAL),
        "vae": diffusers.AutoencoderKL(**AUTOENCODER),
        "scheduler": diffusers.DDPMScheduler(
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
            prediction_type=prediction,
            timestep_spacing="leading",
        ),
    }
    theirs, ours = ran_with_both(SCRIPT, made, tmp_path)
    assert type(ours["unet"]).__module__ == "tinyldm.compat.unet" != type(theirs["unet"]).__module__
    torch.testing.assert_close(
        torch.tensor(ours["losses"]), torch.tensor(theirs["losses"]), rtol=1e-4, atol=0
    )
    assert theirs["losses"][-1] != theirs["losses"][0]
    for a, b in zip(ours["results"], theirs["results"], strict=True):
        assert b.std() > 0.02
        torch.testing.assert_close(
            a, b, rtol=0, atol=2e-3
        )  # Adam divides rounding errors by small gradients


def test_classes_and_pixels(tmp_path):
    torch.manual_seed(0)
    theirs, ours = ran_with_both(CLASSES, {"pixels": diffusers.UNet2DModel(**PIXELS)}, tmp_path)
    assert (
        type(ours["model"]).__module__ == "tinyldm.compat.unet" != type(theirs["model"]).__module__
    )
    torch.testing.assert_close(
        torch.tensor(ours["losses"]), torch.tensor(theirs["losses"]), rtol=1e-4, atol=1e-5
    )
    for a, b in zip(ours["results"], theirs["results"], strict=True):
        assert b.std() > 0.1
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * b.abs().max().item())
