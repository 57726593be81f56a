"""A pipeline of the script's own: labels, guidance, pictures; saved, loaded, in either library."""

import torch
from diffusers import DDIMPipeline, DDPMScheduler, UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput


class LabelPipeline(DDPMPipeline):
    """DDPMPipeline with a label for each image."""

    @torch.no_grad()
    def __call__(self, labels, generator=None, num_inference_steps=10, scale=2.0):
        size = self.unet.config.sample_size
        shape = (len(labels), self.unet.config.in_channels, size, size)
        image = torch.randn(shape, generator=generator).to(self.device)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.progress_bar(self.scheduler.timesteps):
            told = self.unet(image, t, class_labels=labels).sample
            other = self.unet(image, t, class_labels=torch.zeros_like(labels)).sample
            prediction = other + scale * (told - other)
            image = self.scheduler.step(prediction, t, image, generator=generator).prev_sample
        image = (image / 2 + 0.5).clamp(0, 1)
        array = image.cpu().permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(array))


class Plain(DiffusionPipeline):
    """A pipeline from nothing but the base class."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, labels):
        image = torch.full((len(labels), 3, 8, 8), 0.3, device=self.device)
        output = self.unet(image, 1, labels).sample
        return self.scheduler.step(output, 1, image).pred_original_sample


unet = UNet2DModel.from_pretrained(f"{root}/pixels")  # noqa: F821
scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
labels = torch.tensor([1, 3, 4])
pipeline = LabelPipeline(unet=unet, scheduler=scheduler).to("cpu")
pipeline.set_progress_bar_config(disable=True)
losses, results = [], []
pictures = pipeline(labels, generator=torch.manual_seed(0)).images
results.append(torch.stack([torch.tensor(list(p.getdata())) for p in pictures]) / 255)
pipeline.save_pretrained(f"{root}/own")  # noqa: F821
again = LabelPipeline.from_pretrained(f"{root}/own")  # noqa: F821
again.set_progress_bar_config(disable=True)
assert set(again.components) == {"unet", "scheduler"}
pictures = again(labels, generator=torch.manual_seed(0)).images
assert [list(p.getdata()) for p in pictures] == [
    list(p.getdata()) for p in pipeline(labels, generator=torch.manual_seed(0)).images
]
results.append(Plain(unet, DDPMScheduler())(labels))

none = UNet2DModel.from_pretrained(f"{root}/plain")  # noqa: F821
ddim = DDIMPipeline(unet=none, scheduler=scheduler)
ddim.set_progress_bar_config(disable=True)
for eta in (0.0, 1.0):
    out = ddim(
        batch_size=2,
        generator=torch.manual_seed(0),
        eta=eta,
        num_inference_steps=10,
        output_type="np",
        return_dict=False,
    )
    results.append(torch.from_numpy(out[0]))
