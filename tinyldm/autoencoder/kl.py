"""The autoencoder of latent diffusion (LDM, 2112.10752): images to latents and back, in the published file layout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from tinyldm.autoencoder import published as vae_files
from tinyldm.errors import InputError
from tinyldm.frozen.loading import weights_hash


class AutoencoderConfig(PretrainedConfig):
    """The shape of an autoencoder, under the names of the published config.json."""

    model_type = "autoencoder_kl"

    def __init__(
        self,
        in_channels=3,
        out_channels=3,
        down_block_types=None,
        up_block_types=None,
        layers_per_block=2,
        block_out_channels=(128, 256, 512, 512),
        act_fn="silu",
        latent_channels=4,
        norm_num_groups=32,
        scaling_factor=0.18215,
        use_quant_conv=True,
        use_post_quant_conv=True,
        mid_block_add_attention=True,
        **options,
    ):
        self.in_channels, self.out_channels = in_channels, out_channels
        self.block_out_channels = list(block_out_channels)
        levels = len(self.block_out_channels)
        self.down_block_types = list(down_block_types or ["DownEncoderBlock2D"] * levels)
        self.up_block_types = list(up_block_types or ["UpDecoderBlock2D"] * levels)
        self.layers_per_block, self.act_fn = layers_per_block, act_fn
        self.latent_channels, self.norm_num_groups = latent_channels, norm_num_groups
        self.scaling_factor = scaling_factor
        self.use_quant_conv, self.use_post_quant_conv = use_quant_conv, use_post_quant_conv
        self.mid_block_add_attention = mid_block_add_attention
        if self.down_block_types != ["DownEncoderBlock2D"] * levels:
            raise ValueError(
                f"down_block_types: expected {levels} x DownEncoderBlock2D, got {self.down_block_types}"
            )
        if self.up_block_types != ["UpDecoderBlock2D"] * levels:
            raise ValueError(
                f"up_block_types: expected {levels} x UpDecoderBlock2D, got {self.up_block_types}"
            )
        if act_fn != "silu":
            raise ValueError(f"act_fn: expected silu, got {act_fn!r}")
        if any(width % norm_num_groups for width in self.block_out_channels):
            raise ValueError(
                f"norm_num_groups {norm_num_groups} does not divide all of {self.block_out_channels}"
            )
        super().__init__(**options)

    def architecture(self) -> dict:
        """What weights depend on."""
        names = (
            "in_channels",
            "out_channels",
            "block_out_channels",
            "layers_per_block",
            "latent_channels",
            "norm_num_groups",
            "use_quant_conv",
            "use_post_quant_conv",
            "mid_block_add_attention",
        )
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Posterior:
    """The Gaussian q(z | image) of the encoder; mean and std: (b, c, h, w)."""

    mean: Tensor
    std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw z; the noise comes from the CPU, so that every device gives the same latents."""
        device = generator.device if generator is not None else "cpu"
        return self.mean + self.std * torch.randn(
            self.mean.shape, generator=generator, device=device
        ).to(self.mean)

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) of each latent value (1312.6114, appendix B). Shape (b, c, h, w)."""
        return 0.5 * (self.mean**2 + self.std**2 - 1) - self.std.log()


class ResnetBlock(nn.Module):
    """Two convolutions, each behind group norm and SiLU, added to the input."""

    def __init__(self, channels: int, out_channels: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels:
            self.conv_shortcut = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, h, w) to (b, out_channels, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    """Self-attention of one head over all positions, residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w), and so is the result."""
        tokens = rearrange(self.group_norm(x), "b c h w -> b 1 (h w) c")
        tokens = F.scaled_dot_product_attention(
            self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        )
        return x + rearrange(self.to_out[0](tokens), "b 1 (h w) c -> b c h w", h=x.shape[2])


class Downsample(nn.Module):
    """A convolution with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w) to (b, c, h/2, w/2), padded at the right and the bottom alone as in the published models."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w) to (b, c, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """ResNet blocks of one resolution, then half or double of it, or neither at the last level."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        layers: int,
        groups: int,
        resample: str | None,
        cls=None,
    ):
        super().__init__()
        widths = [channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(i, o, groups) for i, o in itertools.pairwise(widths)
        )
        if resample:
            setattr(self, resample, nn.ModuleList([cls(out_channels)]))

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, h, w) to (b, out_channels, ...)."""
        for part in self.children():
            for layer in part:
                x = layer(x)
        return x


class Middle(nn.Module):
    """ResNet block, attention if wanted, ResNet block."""

    def __init__(self, channels: int, groups: int, attention: bool):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, h, w), and so is the result."""
        first, second = self.resnets
        x = first(x)
        for attention in self.attentions:
            x = attention(x)
        return second(x)


class Encoder(nn.Module):
    """Image to the moments of the posterior."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups, layers = (
            config.block_out_channels,
            config.norm_num_groups,
            config.layers_per_block,
        )
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        ways = ["downsamplers"] * (len(widths) - 1) + [None]
        self.down_blocks = nn.ModuleList(
            Level(i, o, layers, groups, way, Downsample)
            for i, o, way in zip([widths[0], *widths], widths, ways)
        )
        self.mid_block = Middle(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, 3, h, w) to (b, 2 c, h/f, w/f)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to image."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups, layers = (
            config.block_out_channels[::-1],
            config.norm_num_groups,
            config.layers_per_block + 1,
        )
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups, config.mid_block_add_attention)
        ways = ["upsamplers"] * (len(widths) - 1) + [None]
        self.up_blocks = nn.ModuleList(
            Level(i, o, layers, groups, way, Upsample)
            for i, o, way in zip([widths[0], *widths], widths, ways)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """z: (b, c, h/f, w/f) to (b, 3, h, w)."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class AutoencoderKL(PreTrainedModel):
    """A variational autoencoder with the module names of the published ones, so that their files load as they are."""

    config_class = AutoencoderConfig
    main_input_name = "images"

    def __init__(self, config: AutoencoderConfig):
        super().__init__(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        c = config.latent_channels
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(c, c, 1) if config.use_post_quant_conv else nn.Identity()
        self.post_init()

    def _init_weights(self, module: nn.Module):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    @property
    def factor(self) -> int:
        """How many times smaller the latents are than the image, along each side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def latent_channels(self) -> int:
        """How many numbers the latents have at each place."""
        return self.config.latent_channels

    @property
    def fingerprint(self) -> str:
        """A hash of configuration and weights, for whoever keeps what this model computed."""
        return weights_hash(
            {k: weight.float() for k, weight in self.state_dict().items()},
            self.config.architecture(),
        )

    def posterior(self, images: Tensor) -> Posterior:
        """q(z | image) in the precision of the caller, for training; see encode."""
        if images.ndim != 4 or images.shape[2] % self.factor or images.shape[3] % self.factor:
            expected = (
                f"(b, {self.config.in_channels}, h, w) with h and w divisible by {self.factor}"
            )
            raise ValueError(f"images: expected {expected}, got {tuple(images.shape)}")
        mean, log_variance = self.quant_conv(self.encoder(images)).float().chunk(2, dim=1)
        return Posterior(mean, (0.5 * log_variance.clamp(-30.0, 20.0)).exp())

    def encode(self, images: Tensor) -> Posterior:
        """q(z | image) of images (b, 3, h, w) in [-1, 1]; float32 whatever surrounds it, for float16 overflows."""
        if self.dtype != torch.float32:
            raise ValueError(f"an autoencoder encodes in float32, got weights in {self.dtype}")
        with torch.autocast(images.device.type, enabled=False):
            return self.posterior(images.float())

    def decode(self, latents: Tensor) -> Tensor:
        """Images (b, 3, h, w), about [-1, 1] and not clipped, of latents (b, c, h/f, w/f); float32."""
        return self.decoder(self.post_quant_conv(latents)).float()

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction decode(mean) of images (b, 3, h, w)."""
        return self.decode(self.posterior(images).mean)

    @classmethod
    def load(cls, name: str | Path, subfolder: str | None = None) -> AutoencoderKL:
        """The autoencoder called "tiny", in a folder (or in its folder vae) or at a hub name; float32, in eval mode.

        Every weight must be there, in its shape, and no other; only safetensors files are read.
        """
        config_file, weights_file = vae_files.find(str(name), subfolder)
        known = set(signature(AutoencoderConfig.__init__).parameters)
        try:
            config = AutoencoderConfig(
                **vae_files.read_config(config_file, known, AutoencoderConfig.model_type)
            )
            with torch.device("meta"):
                model = cls(config)
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            raise InputError(f"{config_file}: {error}") from None
        shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        model.load_state_dict(vae_files.read_weights(weights_file, shapes), assign=True)
        return model.eval()
