"""What train_unconditional.py does: EMA, a schedule of learning rates, a pipeline in a folder."""

import inspect

import diffusers
import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from diffusers.utils import (
    check_min_version,
    is_accelerate_version,
    is_tensorboard_available,
    is_wandb_available,
)
from diffusers.utils.import_utils import is_xformers_available

check_min_version("0.30.0")
for told in (is_tensorboard_available(), is_wandb_available(), is_xformers_available()):
    assert isinstance(told, bool)
assert not is_accelerate_version("<", "0.0.1")
diffusers.utils.logging.set_verbosity_error()
results, losses = [], []
for prediction_type in ("epsilon", "sample"):
    model = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    start(model)  # noqa: F821 - gives every library the same weights
    ema_model = EMAModel(
        model.parameters(),
        decay=0.9999,
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=3 / 4,
        model_cls=UNet2DModel,
        model_config=model.config,
    )
    accepts_prediction_type = "prediction_type" in set(
        inspect.signature(DDPMScheduler.__init__).parameters.keys()
    )
    if accepts_prediction_type:
        noise_scheduler = DDPMScheduler(
            num_train_timesteps=1000, beta_schedule="linear", prediction_type=prediction_type
        )
    else:
        noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-2, momentum=0.9)
    lr_scheduler = get_scheduler(
        "cosine", optimizer=optimizer, num_warmup_steps=2, num_training_steps=8
    )
    torch.manual_seed(0)
    model.train()
    for _ in range(6):
        clean_images = torch.rand(4, 3, 8, 8) * 2 - 1
        noise = torch.randn(clean_images.shape)
        timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (4,)).long()
        noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
        model_output = model(noisy_images, timesteps).sample
        if prediction_type == "epsilon":
            loss = F.mse_loss(model_output.float(), noise.float())
        else:
            alpha_t = noise_scheduler.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
            snr_weights = alpha_t / (1 - alpha_t)
            loss = snr_weights * F.mse_loss(
                model_output.float(), clean_images.float(), reduction="none"
            )
            loss = loss.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        ema_model.step(model.parameters())
        losses += [loss.item(), lr_scheduler.get_last_lr()[0], ema_model.cur_decay_value]

    ema_model.store(model.parameters())
    ema_model.copy_to(model.parameters())
    pipeline = DDPMPipeline(unet=model, scheduler=noise_scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator(device=pipeline.device).manual_seed(0)
    images = pipeline(
        generator=generator, batch_size=2, num_inference_steps=10, output_type="np"
    ).images
    results.append(torch.from_numpy(images))
    pipeline.save_pretrained(f"{root}/{prediction_type}")  # noqa: F821
    ema_model.restore(model.parameters())
    results.append(model.conv_in.weight.detach().clone())

    again = DDPMPipeline.from_pretrained(f"{root}/{prediction_type}")  # noqa: F821
    again.set_progress_bar_config(disable=True)
    picture = again(generator=torch.manual_seed(1), num_inference_steps=4).images[0]
    results.append(torch.tensor(list(picture.getdata())) / 255)
    assert again.scheduler.config.prediction_type == prediction_type

    ema_model.save_pretrained(f"{root}/ema")  # noqa: F821
    loaded = EMAModel.from_pretrained(f"{root}/ema", UNet2DModel)  # noqa: F821
    assert loaded.optimization_step == 6
    results += [average.detach() for average in loaded.shadow_params[:3]]
