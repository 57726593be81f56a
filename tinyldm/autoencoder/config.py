"""The shape of an autoencoder, under the names of the published config.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tinyldm.errors import InputError
from tinyldm.nn.config import is_whole
from tinyldm.typed import Positive, as_json, as_type

# What the weights depend on, and so what a fingerprint has to know
ARCHITECTURE = (
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
# Entries of a config.json that other libraries leave there and that change nothing here
NOTES = frozenset(
    {
        "_class_name",
        "_diffusers_version",
        "_name_or_path",
        "sample_size",
        "force_upcast",
        "architectures",
        "model_type",
        "dtype",
        "torch_dtype",
        "transformers_version",
    }
)


@dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of an autoencoder; a field is named as in the config.json of the published ones.

    block_out_channels: channels at each size, from the image's own to the latents'; every size is
                        half of the one before
    layers_per_block:   ResBlocks at each size of the encoder; the decoder has one more
    latent_channels:    numbers that the latents have at each place
    scaling_factor:     what other programs multiply the latents by; nothing here does
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ()  # for (): DownEncoderBlock2D at each size
    up_block_types: tuple[str, ...] = ()  # for (): UpDecoderBlock2D at each size
    layers_per_block: int = 2
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: Positive = 0.18215
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    model_type: ClassVar[str] = "autoencoder_kl"

    def __post_init__(self) -> None:
        """ValueError: a value that is not supported, by the name of its field."""
        set_field = object.__setattr__  # the one way to complete a frozen value
        widths = tuple(self.block_out_channels)
        set_field(self, "block_out_channels", widths)
        counts = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "layers_per_block": self.layers_per_block,
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.norm_num_groups,
        }
        for name, count in counts.items():
            if not is_whole(count):
                raise ValueError(f"{name}: expected a whole number from 1 on, got {count!r}")
        if not widths or not all(is_whole(width) for width in widths):
            raise ValueError(f"block_out_channels: expected whole numbers from 1 on, got {widths}")
        if any(width % self.norm_num_groups for width in widths):
            raise ValueError(
                f"norm_num_groups {self.norm_num_groups} does not divide all of {list(widths)}"
            )
        if self.act_fn != "silu":
            raise ValueError(f"act_fn: expected silu, got {self.act_fn!r}")
        n = len(widths)
        down = _blocks("down_block_types", self.down_block_types, "DownEncoderBlock2D", n)
        up = _blocks("up_block_types", self.up_block_types, "UpDecoderBlock2D", n)
        set_field(self, "down_block_types", down)
        set_field(self, "up_block_types", up)

    @property
    def factor(self) -> int:
        """How many times smaller the latents are than the image, along each side."""
        factor: int = 2 ** (len(self.block_out_channels) - 1)
        return factor

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: lists for tuples."""
        values = asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any], where: str = "config") -> AutoencoderConfig:
        """The inverse of to_dict; notes of other libraries and null entries are left out.

        InputError, which names the place `where`: it is the config of something else, has an
        unknown key or a value that is not supported.
        """
        class_name = entries.get("_class_name", "AutoencoderKL")
        model_type = entries.get("model_type", cls.model_type)
        if class_name != "AutoencoderKL" or model_type != cls.model_type:
            got = f"{as_json(class_name)} / {as_json(model_type)}"
            raise InputError(f"{where}: expected an AutoencoderKL, got {got}")
        values = {
            name: value
            for name, value in entries.items()
            if name not in NOTES and value is not None
        }
        config: AutoencoderConfig = as_type(values, where, cls)
        return config

    def architecture(self) -> dict[str, Any]:
        """What the weights depend on: the part of to_dict that a fingerprint has to know."""
        values = self.to_dict()
        return {name: values[name] for name in ARCHITECTURE}


def _blocks(name: str, given: tuple[str, ...], kind: str, n: int) -> tuple[str, ...]:
    """n times the one kind of block that is supported; ValueError where others are given."""
    expected = (kind,) * n
    if given and tuple(given) != expected:
        raise ValueError(f"{name}: expected {n} x {kind}, got {list(given)}")
    return expected
