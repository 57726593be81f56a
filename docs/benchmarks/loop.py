"""The whole training loop at 256x256 against the usual one, which has VAE and CLIP in every step.

    python docs/benchmarks/loop.py [--quick]

Frozen models of full size with random weights: the VAE of Stable Diffusion, and the text tower of
CLIP-B/32. The usual loop reads images, encodes images and captions, adds noise, trains diffusers'
UNet and steps AdamW; ours is Trainer, on a latent cache that it has built of the same images. Both
have the network of widths 128-256-512-512. First they are shown to encode alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from rounds import arguments, flops, in_turns, keep, machine, table
from training_step import step, trainer_of

from tinyldm import UNetConfig
from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.compat.native import from_native
from tinyldm.data.examples import Example
from tinyldm.data.images import Augmentation
from tinyldm.data.latents import open_or_build
from tinyldm.device import pick_device
from tinyldm.frozen.text import TextEncoder
from tinyldm.tasks.text import CaptionEncoder
from tinyldm.training.presets import PRESETS

TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 77}
QUICK_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
QUICK_TEXT |= {"num_attention_heads": 2, "max_position_embeddings": 77}
QUICK_VAE = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
QUICK_NETWORK = UNetConfig(
    channels=(16, 32), attention=("none", "cross"), blocks=1, heads=2, groups=8
)
CAPTION = "a painting of a small green monster with two horns and a crown that waves at number"


def write_images(folder, count, size):
    """So many images of noise with captions of one length."""
    examples = []
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        examples.append(Example(folder / f"{k}.png", (f"{CAPTION} {k}",)))
    return examples


def frozen(quick, device):
    """Our VAE and text encoder, with random weights."""
    torch.manual_seed(0)
    vae = AutoencoderKL(AutoencoderConfig(**(QUICK_VAE if quick else {}))).eval()
    tokenizer = TextEncoder.load("tiny").tokenizer
    config = transformers.CLIPTextConfig(
        vocab_size=max(49408, len(tokenizer)), **(QUICK_TEXT if quick else TEXT)
    )
    text = TextEncoder(
        transformers.CLIPTextModel(config).eval().to(device), tokenizer, "random", {}
    )
    vae = vae.requires_grad_(False).to(device, memory_format=torch.channels_last)
    return vae, text


class Usual:
    """The usual loop: everything in every step."""

    def __init__(self, examples, vae, text, config, batch, device):
        settings = {name: getattr(vae.config, name) for name in QUICK_VAE}
        levels = len(vae.config.block_out_channels)
        self.vae = diffusers.AutoencoderKL(
            latent_channels=vae.config.latent_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            **settings,
        )
        self.vae.load_state_dict(vae.state_dict())
        self.vae.requires_grad_(False).eval().to(device)
        self.text, self.device = text, device
        known = dict(from_native(config).config)
        self.network = diffusers.UNet2DConditionModel.from_config(known).to(device)
        self.scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.examples, self.batch, self.at = examples, batch, 0

    @torch.no_grad()
    def encoded(self, examples):
        """Latents and tokens of some examples."""
        images = []
        for example in examples:
            image = np.asarray(Image.open(example.image).convert("RGB"))
            images.append(torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 127.5 - 1)
        posterior = self.vae.encode(torch.stack(images).to(self.device)).latent_dist
        texts = [example.prompts[0] for example in examples]
        inputs = self.text.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=77
        )
        tokens = self.text.model(**inputs.to(self.device)).last_hidden_state
        return posterior, tokens

    def step(self):
        """One step."""
        chosen = [self.examples[(self.at + k) % len(self.examples)] for k in range(self.batch)]
        self.at += self.batch
        posterior, tokens = self.encoded(chosen)
        x0 = posterior.sample() * 0.18215
        eps = torch.randn_like(x0)
        t = torch.randint(1000, (len(x0),), device=self.device)
        x_t = self.scheduler.add_noise(x0, eps, t)
        predicted = self.network(x_t, t, encoder_hidden_states=tokens).sample
        loss = F.mse_loss(predicted, self.scheduler.get_velocity(x0, eps, t))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()


def difference(cache, usual):
    """How far the two are apart in what they make of an image and of a caption."""
    posterior, tokens = usual.encoded(usual.examples[:1])
    kept = torch.from_numpy(np.array(cache._latents[0])).float()
    theirs = torch.stack([posterior.mean[0], posterior.std[0]]).cpu()
    number = cache._choices[cache._firsts[0]][None]
    ours = cache.tokens(number).tokens
    latents = ((kept - theirs).abs() / theirs.abs().clamp(min=0.1)).max().item()
    return {"latents": latents, "tokens": (ours - tokens.cpu()).abs().max().item()}


def main(argv=None):
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--images", type=int, default=8)
    given = parser.parse_args(argv)
    size, config = 256, PRESETS["base"]
    if given.quick:
        size, config, given.rounds, given.images = 16, QUICK_NETWORK, 1, 4
    device = pick_device()
    vae, text = frozen(given.quick, device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        examples = write_images(folder, given.images, size)
        sized = {"in_channels": 4, "out_channels": 4, "token_dim": text.width}
        sized = UNetConfig(**{**vars(config), **sized})
        usual = Usual(examples, vae, text, sized, batch=given.batch, device=device)
        wall, cpu = time.perf_counter(), time.process_time()
        cache = open_or_build(
            examples,
            vae,
            CaptionEncoder(text),
            size,
            augmentation=Augmentation(flip=False),
            folder=folder / "cache",
            device=device,
            progress=False,
        )
        building = (time.perf_counter() - wall, time.process_time() - cpu)
        how = {"batch_size": given.batch, "size": (size, size), "precision": "float32"}
        trainer = trainer_of(cache, config, folder / "run", device, **how)
        sides = {"ours": lambda: step(trainer), "usual": usual.step}
        counted = {side: flops(call) for side, call in sides.items()}
        encoding = flops(lambda: usual.encoded(examples[:1]))
        result = {
            "machine": machine(),
            "size": size,
            "batch": given.batch,
            "difference": difference(cache, usual),
            "flop an image": {side: count / given.batch for side, count in counted.items()},
            "flop of encoding": encoding,
            "cache seconds an image": building[0] / given.images,
            "cache cpu seconds an image": building[1] / given.images,
            "cache bytes an image": cache._latents[0].nbytes,
            **in_turns(sides, given.rounds),
        }
    for kind, cost in (("seconds", building[0]), ("cpu seconds", building[1])):
        saved = (result[kind]["usual"] - result[kind]["ours"]) / given.batch
        result[f"paid after epochs, {kind}"] = cost / given.images / saved
    keep("loop", result, given, write(result))


def write(result):
    """The table of a result."""
    rows = []
    for side in ("usual", "ours"):
        rows.append(
            [
                side,
                f"{result['flop an image'][side] / 1e9:,.0f}",
                f"{result['batch'] / result['seconds'][side]:.2f}",
                f"{result['cpu seconds'][side] / result['batch']:.2f}",
            ]
        )
    flop = result["flop an image"]
    rows.append(
        [
            "ratio",
            f"{flop['usual'] / flop['ours']:.2f}",
            f"{1 / result['ratio']['usual']:.2f}",
            f"{1 / result['cpu ratio']['usual']:.2f}",
        ]
    )
    return table(["loop", "GFLOP an image", "images/s", "processor seconds an image"], rows)


if __name__ == "__main__":
    sys.exit(main())
