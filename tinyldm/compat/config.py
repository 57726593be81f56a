"""What schedulers and models share: settings that are checked, and folders that are read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import save_file
from torch import Tensor

from tinyldm.autoencoder.published import read_weights
from tinyldm.errors import InputError

# of each class: its settings in diffusers' order, each with its default and, where not all are, the supported values
SETTINGS: dict[str, dict[str, list]] = json.loads(
    (Path(__file__).parent / "settings.json").read_text("utf-8")
)
HUB = ("revision", "cache_dir", "local_files_only", "token", "force_download")
WEIGHTS = "diffusion_pytorch_model.safetensors"
# what the files of other schedulers say and these have no use for
FOREIGN = {"skip_prk_steps", "interpolation_type", "timestep_type", "sigma_min", "sigma_max"}
FOREIGN |= {name for kind, settings in SETTINGS.items() if "Scheduler" in kind for name in settings}


class Config(dict):
    """Settings, read only: config.name or config["name"]; a model's also answers with the names of the library's own.

    defaulted: the names that nobody gave, which another class fills with defaults of its own
    """

    def __init__(self, values: dict, defaulted: frozenset = frozenset(), native=None):
        super().__init__(values)
        self.__dict__.update(defaulted=defaulted, native=native)

    def __getattr__(self, name: str):
        if name in self:
            return self[name]
        if name.startswith("__") or self.native is None:
            raise AttributeError(f"no setting {name!r}")
        return getattr(self.native, name)

    def __reduce__(self):
        return Config, (dict(self), self.defaulted, self.native)

    def _read_only(self, *_):
        raise TypeError(
            "a config is read only; make a new object with from_config(config, name=value)"
        )

    __setattr__ = __setitem__ = __delitem__ = update = pop = setdefault = clear = _read_only


def by_name(output):
    """Gives a kind of output diffusers' other ways to read it: out["sample"] and out.to_tuple()."""
    output.__getitem__ = lambda out, key: (
        getattr(out, key) if isinstance(key, str) else tuple.__getitem__(out, key)
    )
    output.to_tuple = lambda out: tuple(part for part in out if part is not None)
    return output


@by_name
class Output(NamedTuple):
    """What a network returns."""

    sample: Tensor


class Configured:
    """An object with the settings of diffusers' class of the same name, in its folder."""

    FILE = "config.json"
    foreign: set[str] = set()  # settings that from_config takes without a use for them

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        for name in SETTINGS.get(
            cls.__name__, ()
        ):  # older scripts say unet.in_channels for unet.config.in_channels
            setattr(cls, name, property(lambda self, name=name: self.config[name]))

    @classmethod
    def settings(cls, args: tuple, given: dict) -> Config:
        """The arguments of the constructor as a Config; one that is unknown or not supported raises, by its name."""
        known = SETTINGS[cls.__name__]
        if len(args) > len(known) or given.keys() & (positional := dict(zip(known, args))):
            raise TypeError(f"{cls.__name__}: too many arguments")
        given = positional | given
        for name, value in given.items():
            if name not in known:
                raise TypeError(f"{cls.__name__}: argument {name!r} is not supported")
            if len(known[name]) > 1 and value not in known[name][1]:
                expected = " or ".join(map(repr, known[name][1]))
                raise ValueError(
                    f"{cls.__name__}: not supported: {name}={value!r}, expected {expected}"
                )
        return Config(
            {name: given.get(name, known[name][0]) for name in known},
            frozenset(known.keys() - given),
        )

    @classmethod
    def from_config(cls, config: dict, **changes):
        """An object with the settings of config, of this class or another scheduler's; a key of neither raises.

        What only another scheduler knows stays in the new config, so that it can be had back.
        """
        unset = getattr(config, "defaulted", ())
        values = {k: v for k, v in config.items() if k not in unset and k[0] != "_"} | changes
        for name in values.keys() - SETTINGS[cls.__name__].keys() - cls.foreign:
            raise ValueError(f"{cls.__name__}: setting {name!r} is not supported")
        made = cls(**{k: v for k, v in values.items() if k in SETTINGS[cls.__name__]})
        made.config = Config(values | made.config, made.config.defaulted, made.config.native)
        return made

    @classmethod
    def load_config(
        cls, pretrained_model_name_or_path: str | Path, subfolder: str | None = None, **hub
    ) -> dict:
        """The settings in a folder, or under a name of the hub."""
        file = _find(pretrained_model_name_or_path, subfolder, cls.FILE, hub)
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: not JSON ({error})") from None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, subfolder: str | None = None, **options
    ):
        """The object saved in a folder or under a name of the hub; options are the hub's, or change settings."""
        hub = {name: options.pop(name) for name in HUB if name in options}
        return cls.from_config(
            cls.load_config(pretrained_model_name_or_path, subfolder, **hub), **options
        )

    def save_config(self, save_directory: str | Path) -> None:
        """Write the settings where from_pretrained and diffusers find them."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        entries = {**self.config, "_class_name": type(self).__name__}
        text = json.dumps(entries, indent=2, sort_keys=True, default=lambda array: array.tolist())
        Path(save_directory, self.FILE).write_text(text + "\n", encoding="utf-8")

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write what from_pretrained reads."""
        self.save_config(save_directory)


class ConfiguredModel(Configured):
    """A network with such settings; its weights lie beside them."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        subfolder=None,
        torch_dtype=None,
        variant=None,
        use_safetensors=True,
        **options,
    ):
        """The network in eval mode, float32 unless told; every weight must be there, in its shape, and no other."""
        if use_safetensors is False:
            raise ValueError(f"{cls.__name__}: not supported: use_safetensors=False")
        hub = {name: options.pop(name) for name in HUB if name in options}
        with torch.device("meta"):
            model = cls.from_config(
                cls.load_config(pretrained_model_name_or_path, subfolder, **hub), **options
            )
        file = _find(pretrained_model_name_or_path, subfolder, _weights(variant), hub)
        weights = read_weights(
            file, {name: tuple(w.shape) for name, w in model.state_dict().items()}
        )
        model.load_state_dict(weights, assign=True)
        return model.to(torch_dtype or torch.float32).eval()

    def save_pretrained(
        self, save_directory: str | Path, safe_serialization=True, variant=None
    ) -> None:
        """Write config.json and diffusion_pytorch_model.safetensors."""
        if not safe_serialization:
            raise ValueError(
                f"{type(self).__name__}: not supported: safe_serialization={safe_serialization}"
            )
        super().save_pretrained(save_directory)
        weights = {name: w.detach().cpu().contiguous() for name, w in self.state_dict().items()}
        save_file(weights, Path(save_directory, _weights(variant)), metadata={"format": "pt"})

    device = property(lambda self: next(self.parameters()).device, doc="Where the weights are.")
    dtype = property(lambda self: next(self.parameters()).dtype, doc="What the weights are.")

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the weights are."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)


def _weights(variant: str | None) -> str:
    return WEIGHTS.replace(".", f".{variant}.") if variant else WEIGHTS


def _find(path, subfolder: str | None, name: str, hub: dict) -> Path:
    """A file in a folder, in the hub's cache or on the hub."""
    folder = Path(path, subfolder or "")
    if (folder / name).is_file():
        return folder / name
    if Path(path).is_dir():
        raise InputError(f"{folder}: no {name} in it")
    try:
        return Path(hf_hub_download(str(path), name, subfolder=subfolder, **hub))
    except (
        Exception
    ) as error:  # the hub raises many kinds; each means that the file can't be had from there
        why = str(error).split("\n")[0]
        raise InputError(
            f"{path}: no such folder, and no {name} on the hub under this name ({why})"
        ) from None
