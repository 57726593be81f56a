"""The autoencoder of latent diffusion (LDM, 2112.10752): images to latents and back, in the published file layout."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from tinyldm.errors import InputError

TINY = Path(__file__).parent.parent / "assets" / "vae"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
# notes that other libraries leave in a config.json and that change nothing here
NOTES = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size", "force_upcast", "architectures",
         "model_type", "dtype", "torch_dtype", "transformers_version"}  # fmt: skip
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class AutoencoderConfig(PretrainedConfig):
    """The shape of an autoencoder, under the names of the published config.json."""

    model_type = "autoencoder_kl"

    def __init__(
        self,
        in_channels=3,
        out_channels=3,
        down_block_types=None,
        up_block_types=None,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
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
            raise ValueError(f"down_block_types: expected {levels} x DownEncoderBlock2D, got {self.down_block_types}")
        if self.up_block_types != ["UpDecoderBlock2D"] * levels:
            raise ValueError(f"up_block_types: expected {levels} x UpDecoderBlock2D, got {self.up_block_types}")
        if act_fn != "silu":
            raise ValueError(f"act_fn: expected silu, got {act_fn!r}")
        if any(width % norm_num_groups for width in self.block_out_channels):
            raise ValueError(f"norm_num_groups {norm_num_groups} does not divide all of {self.block_out_channels}")
        super().__init__(**options)

    def architecture(self) -> dict:
        """What weights depend on."""
        names = ("in_channels", "out_channels", "block_out_channels", "layers_per_block", "latent_channels",
                 "norm_num_groups", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Posterior:
    """The Gaussian q(z | image) of the encoder; mean and std: (b, c, h, w)."""

    mean: Tensor
    std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw z; the noise comes from the CPU, so that every device gives the same latents."""
        device = generator.device if generator is not None else "cpu"
        return self.mean + self.std * torch.randn(self.mean.shape, generator=generator, device=device).to(self.mean)

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) of each latent value (1312.6114, appendix B). Shape (b, c, h, w)."""
        return 0.5 * (self.mean**2 + self.std**2 - 1) - self.std.log()


class ResnetBlock(nn.Module):
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
        tokens = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + rearrange(self.to_out[0](tokens), "b 1 (h w) c -> b c h w", h=x.shape[2])


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w) to (b, c, h/2, w/2), padded at the right and the bottom alone as in the published models."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w) to (b, c, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """ResNet blocks of one resolution, then half or double of it, or neither at the last level."""

    def __init__(self, channels: int, out_channels: int, layers: int, groups: int, resample: str | None, cls=None):
        super().__init__()
        widths = [channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(ResnetBlock(i, o, groups) for i, o in zip(widths, widths[1:]))
        if resample:
            setattr(self, resample, nn.ModuleList([cls(out_channels)]))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            for layer in part:
                x = layer(x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int, attention: bool):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.resnets
        x = first(x)
        for attention in self.attentions:
            x = attention(x)
        return second(x)


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups, layers = config.block_out_channels, config.norm_num_groups, config.layers_per_block
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        ways = ["downsamplers"] * (len(widths) - 1) + [None]
        self.down_blocks = nn.ModuleList(
            Level(i, o, layers, groups, way, Downsample) for i, o, way in zip([widths[0], *widths], widths, ways)
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
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups, layers = config.block_out_channels[::-1], config.norm_num_groups, config.layers_per_block + 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups, config.mid_block_add_attention)
        ways = ["upsamplers"] * (len(widths) - 1) + [None]
        self.up_blocks = nn.ModuleList(
            Level(i, o, layers, groups, way, Upsample) for i, o, way in zip([widths[0], *widths], widths, ways)
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
        return self.config.latent_channels

    @property
    def fingerprint(self) -> str:
        """A hash of configuration and weights, for whoever keeps what this model computed."""
        digest = hashlib.sha256(json.dumps(self.config.architecture(), sort_keys=True).encode())
        for name, weight in sorted(self.state_dict().items()):
            digest.update(name.encode() + weight.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def posterior(self, images: Tensor) -> Posterior:
        """q(z | image) in the precision of the caller, for training; see encode."""
        if images.ndim != 4 or images.shape[2] % self.factor or images.shape[3] % self.factor:
            expected = f"(b, {self.config.in_channels}, h, w) with h and w divisible by {self.factor}"
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
        config_file, weights_file = _find(str(name), subfolder)
        config = _read_config(config_file)
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(_read_weights(weights_file, model), assign=True)
        return model.eval().requires_grad_(True)


def _find(name: str, subfolder: str | None) -> tuple[Path, Path]:
    """config.json and the weights of an autoencoder: shipped, on disk or from the hub's cache or the hub."""
    places = [subfolder] if subfolder else [None, "vae"]
    folder = TINY if name == "tiny" else Path(name)
    if folder.is_dir():
        for place in places:
            found = folder / (place or "")
            if (found / "config.json").is_file():
                for weights in WEIGHTS:
                    if (found / weights).is_file():
                        return found / "config.json", found / weights
                raise InputError(f"autoencoder {found}: has config.json but neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
        raise InputError(f"autoencoder {folder}: no config.json in it{f'/{subfolder}' if subfolder else ' or in its vae'}")
    if name == "tiny" or not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputError(f"autoencoder {name}: expected tiny, a folder that exists or a hub name such as user/model")
    for place in places:
        for weights in WEIGHTS:
            try:
                files = [Path(hf_hub_download(name, file, subfolder=place)) for file in ("config.json", weights)]
            except Exception:  # the hub raises many kinds; each means that the file can't be had from there
                continue
            return files[0], files[1]
    place = subfolder or "vae"
    raise InputError(
        f"autoencoder {name}: can't be fetched from the hub; fetch it where there is a network with "
        f"`huggingface-cli download {name} {place}/config.json {place}/{WEIGHTS[0]}`, or use --vae tiny"
    )


def _read_config(file: Path) -> AutoencoderConfig:
    """Read config.json, which may be bare; a key that is not known raises."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from None
    kind = entries.get("_class_name", "AutoencoderKL"), entries.get("model_type", AutoencoderConfig.model_type)
    if kind != ("AutoencoderKL", AutoencoderConfig.model_type):
        raise InputError(f"{file}: expected an AutoencoderKL, got {' / '.join(kind)}")
    entries = {key: value for key, value in entries.items() if key not in NOTES and value is not None}
    unknown = sorted(set(entries) - set(signature(AutoencoderConfig.__init__).parameters))
    if unknown:
        raise InputError(f"{file}: unknown keys {', '.join(unknown)}")
    try:
        return AutoencoderConfig(**entries)
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: {error}") from None


def _read_weights(file: Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights in file under today's names, float32; they must fit model exactly."""
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from None
    expected, weights = {name: tuple(w.shape) for name, w in model.state_dict().items()}, {}
    for name, weight in found.items():
        for old, new in OLD_NAMES.items():
            name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
        if weight.ndim == 4 and expected.get(name) == tuple(weight.shape[:2]) and weight.shape[2:] == (1, 1):
            weight = weight[:, :, 0, 0]  # the oldest files hold attention as 1x1 convolutions
        weights[name] = weight.float()
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"unexpected {name}" for name in weights if name not in expected]
    wrong += [f"{name} has shape {tuple(weights[name].shape)}, expected {shape}" for name, shape in expected.items()
              if name in weights and tuple(weights[name].shape) != shape]  # fmt: skip
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InputError(f"{file}: does not fit its config: {'; '.join(wrong[:4])}{more}")
    return weights
