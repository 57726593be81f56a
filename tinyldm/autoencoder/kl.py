"""The autoencoder of latent diffusion (LDM, 2112.10752): images to latents, and latents to images.

Modules and weights are named as in the published autoencoders, whose files load as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyldm.autoencoder import published
from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.files import replacing_files
from tinyldm.nn.blocks import GroupNorm, ResBlock, SelfAttention, Upsample
from tinyldm.weights import load_into, sized_by, weights_hash, write_weights

__all__ = ["AutoencoderConfig", "AutoencoderKL", "Posterior"]

EPS = 1e-6  # of every norm


@dataclass(frozen=True)
class Posterior:
    """The Gaussian q(z | image) of the encoder; mean and std: (b, c, h, w)."""

    mean: Tensor
    std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw z. The noise comes from the CPU, or from wherever the generator is."""
        device = generator.device if generator is not None else "cpu"
        noise = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) of each latent value (1312.6114, appendix B). Shape (b, c, h, w)."""
        return 0.5 * (self.mean**2 + self.std**2 - 1) - self.std.log()


class Downsample(nn.Module):
    """Half the size: (b, c, h, w) -> (b, c, h/2, w/2), of even h and w.

    As in the published autoencoders, it pads only at the right and the bottom.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        half: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # left, right, top, bottom
        return half


class ResolutionLevel(nn.Module):
    """The ResBlocks of one size, and then a change of size, if any.

    forward: (b, width_in, h, w) -> (b, width, h, w), or half or twice that size
    """

    def __init__(self, width_in: int, width: int, layers: int, groups: int):
        super().__init__()
        widths_in = [width_in] + [width] * (layers - 1)
        self.resnets = nn.ModuleList(
            ResBlock(w, width, time_dim=None, groups=groups, eps=EPS) for w in widths_in
        )
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        for layer in [*self.resnets, *self.downsamplers, *self.upsamplers]:
            x = layer(x)
        return x


class Middle(nn.Module):
    """ResBlock, attention if wanted, ResBlock: (b, width, h, w) -> (b, width, h, w)."""

    def __init__(self, width: int, groups: int, attention: bool):
        super().__init__()
        self.attentions = nn.ModuleList()
        if attention:
            self.attentions.append(SelfAttention(width, 1, groups, EPS))
        self.resnets = nn.ModuleList(
            ResBlock(width, width, time_dim=None, groups=groups, eps=EPS) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.resnets
        for layer in [first, *self.attentions, second]:
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image (b, 3, h, w) -> the moments of the posterior (b, 2 c, h/f, w/f)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        width_in = widths[0]
        for k, width in enumerate(widths):
            level = ResolutionLevel(width_in, width, config.layers_per_block, groups)
            if k < len(widths) - 1:
                level.downsamplers.append(Downsample(width))
            self.down_blocks.append(level)
            width_in = width
        self.mid_block = Middle(width_in, groups, config.mid_block_add_attention)
        self.conv_norm_out = GroupNorm(groups, width_in, EPS)
        self.conv_out = nn.Conv2d(width_in, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.mid_block(x)
        moments: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return moments


class Decoder(nn.Module):
    """Latents (b, c, h/f, w/f) -> image (b, 3, h, w)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList()
        width_in = widths[0]
        for k, width in enumerate(widths):
            level = ResolutionLevel(width_in, width, config.layers_per_block + 1, groups)
            if k < len(widths) - 1:
                level.upsamplers.append(Upsample(width))
            self.up_blocks.append(level)
            width_in = width
        self.conv_norm_out = GroupNorm(groups, width_in, EPS)
        self.conv_out = nn.Conv2d(width_in, config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        image: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return image

    def features(self, z: Tensor) -> list[Tensor]:
        """What the decoder sees of z on the way: after its middle, and after each level.

        The last level is left out, since little but the image comes after it. The first has the
        size of z, (b, width, h/f, w/f), and each further one twice the size of the one before.
        """
        x = self.mid_block(self.conv_in(z))
        seen = [x]
        for level in list(self.up_blocks)[:-1]:
            x = level(x)
            seen.append(x)
        return seen


class AutoencoderKL(nn.Module):
    """A variational autoencoder, images (b, 3, h, w) in [-1, 1] <-> latents (b, c, h/f, w/f)."""

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        c = config.latent_channels
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(c, c, 1) if config.use_post_quant_conv else nn.Identity()
        # The bricks let residual branches start at zero, as suits a denoiser. Here every layer
        # starts as torch has it; stage one prepares the weights in its own way.
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.reset_parameters()

    @property
    def factor(self) -> int:
        """How many times smaller the latents are than the image, along each side."""
        return self.config.factor

    @property
    def latent_channels(self) -> int:
        """How many numbers the latents have at each place."""
        return self.config.latent_channels

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What kind of numbers the weights are."""
        return self.decoder.conv_in.weight.dtype

    @property
    def fingerprint(self) -> str:
        """A hash of configuration and weights, for whoever keeps what this model computed."""
        weights = {name: weight.float() for name, weight in self.state_dict().items()}
        return weights_hash(weights, self.config.architecture())

    def posterior(self, images: Tensor) -> Posterior:
        """q(z | image) in the precision of the caller, for stage one; all others call encode."""
        f = self.factor
        if images.ndim != 4 or images.shape[2] % f or images.shape[3] % f:
            expected = f"(b, {self.config.in_channels}, h, w) with h and w divisible by {f}"
            raise ValueError(f"images: expected {expected}, got {tuple(images.shape)}")
        moments = self.quant_conv(self.encoder(images)).float()  # (b, 2 c, h/f, w/f)
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, (0.5 * log_variance.clamp(-30.0, 20.0)).exp())

    def encode(self, images: Tensor) -> Posterior:
        """q(z | image) of images (b, 3, h, w) in [-1, 1].

        In float32 even under autocast, since the encoder overflows in float16.
        """
        if self.dtype != torch.float32:
            raise ValueError(f"an autoencoder encodes in float32, got weights in {self.dtype}")
        with torch.autocast(images.device.type, enabled=False):
            return self.posterior(images.float())

    def decode(self, latents: Tensor) -> Tensor:
        """Images (b, 3, h, w) float32 of latents (b, c, h/f, w/f): about [-1, 1], not clipped."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images.float()

    def features(self, latents: Tensor) -> list[Tensor]:
        """What the decoder sees of latents (b, c, h/f, w/f) on the way to the image."""
        return self.decoder.features(self.post_quant_conv(latents))

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction decode(mean) of images (b, 3, h, w)."""
        return self.decode(self.posterior(images).mean)

    def set_deviation(self, std: float) -> None:
        """Record in the config that the latents have this standard deviation.

        scaling_factor, by which other programs multiply latents, becomes its inverse.
        """
        self.config = replace(self.config, scaling_factor=round(1 / std, 5))

    @classmethod
    def load(cls, name: str | Path, subfolder: str | None = None) -> AutoencoderKL:
        """The autoencoder called "tiny", in a folder or under a hub name; float32, in eval mode.

        Its files may lie in a folder vae inside, or in the given subfolder. Every weight must be
        there, in its shape, and no other; only safetensors files are read. InputError otherwise.
        """
        config_file, weights_file = published.find(str(name), subfolder)
        config = published.read_config(config_file)
        with sized_by(weights_file, config):  # on the meta device: no memory, no random weights
            model = cls(config)
        load_into(model, published.read_weights(weights_file, model.state_dict()), weights_file)
        return model.eval()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, subfolder: str | None = None
    ) -> AutoencoderKL:
        """load, under the name that other libraries have for it."""
        return cls.load(pretrained_model_name_or_path, subfolder)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json and model.safetensors, which load and other libraries read.

        Both or, on a full disk, neither.
        """
        entries: dict[str, Any] = {
            "_class_name": "AutoencoderKL",
            "architectures": ["AutoencoderKL"],
            "model_type": AutoencoderConfig.model_type,
            "dtype": str(self.dtype).removeprefix("torch."),
            **self.config.to_dict(),
        }
        text = json.dumps(entries, indent=2, sort_keys=True) + "\n"
        with replacing_files(Path(save_directory)) as draft:
            write_weights(draft / "model.safetensors", self.state_dict())
            (draft / "config.json").write_text(text, encoding="utf-8")
