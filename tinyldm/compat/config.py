"""What schedulers and models share: settings that are checked, folders, and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from tinyldm.compat.config_file import check_settings
from tinyldm.compat.settings import SETTINGS, Setting, signature_of
from tinyldm.errors import InputError
from tinyldm.typed import read_json
from tinyldm.weights import load_into, read_weights, sized_by, write_weights

HUB = ("revision", "cache_dir", "local_files_only", "token", "force_download")
AVERAGING = frozenset(  # what EMAModel leaves in the config of the weights that it averages
    {
        "decay",
        "min_decay",
        "optimization_step",
        "update_after_step",
        "use_ema_warmup",
        "inv_gamma",
        "power",
    }
)
SAME_ATTENTION = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor")
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Config(dict[str, Any]):
    """Settings, read only, as config.name or config["name"].

    A model's config also answers with the names of the library's own settings.

    defaulted: the names that nobody gave; another class fills them with defaults of its own
    native:    the library's own config, if any
    """

    def __init__(self, values: dict, defaulted: frozenset = frozenset(), native: Any = None):
        super().__init__(values)
        self.__dict__.update(defaulted=defaulted, native=native)

    def __getattr__(self, name: str) -> Any:
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

    __setattr__ = __setitem__ = __delitem__ = _read_only
    update: Any = _read_only
    pop: Any = _read_only
    setdefault: Any = _read_only
    clear: Any = _read_only


@dataclass(frozen=True, eq=False)
class NamedOutput:
    """What a call returns, to be read in any of diffusers' ways.

    out.sample, out["sample"], out[0] and out.to_tuple()[0] are the same.
    """

    def to_tuple(self) -> tuple:
        """The parts in order, without those that are None."""
        parts = [getattr(self, field.name) for field in fields(self)]
        return tuple(part for part in parts if part is not None)

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self):
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.to_tuple())


@dataclass(frozen=True, eq=False)
class Output(NamedOutput):
    """What a network returns."""

    sample: Tensor


@dataclass(frozen=True, eq=False)
class StepOutput(NamedOutput):
    """What a step returns: x_s and, from DDPM and DDIM, the x0 that it went towards.

    x0 is clipped if that was asked for.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class Configured:
    """An object with the settings of diffusers' class of the same name, in its folder.

    A class whose name is in the table of settings has them as the arguments of its constructor,
    which hands them to `set_up`. A subclass that a script writes inherits the table.

    FILE:    the name of its file of settings
    known:   its settings
    foreign: settings that from_config accepts although this class has no use for them
    """

    FILE = "config.json"
    config: Any  # a Config
    known: ClassVar[Mapping[str, Setting]]
    foreign: ClassVar[frozenset[str]] = frozenset()
    _table: ClassVar[str]  # the name of the class in the table

    if TYPE_CHECKING:

        def __init__(self, *args: Any, **settings: Any): ...

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        if cls.__name__ not in SETTINGS or "__init__" in vars(cls):
            return
        cls.known = SETTINGS[cls.__name__]
        cls._table = cls.__name__
        cls.__init__ = _constructor(cls.known)
        # older scripts say unet.in_channels for unet.config.in_channels
        for name in cls.known.keys() - vars(cls).keys():
            setattr(cls, name, _property_of_config(name))

    def set_up(self, given: Config) -> None:
        """Make the object of its settings, which have been checked one by one."""
        raise NotImplementedError

    @classmethod
    def settings(cls, args: tuple, given: dict) -> Config:
        """The arguments of the constructor as a Config; one that is not supported is named."""
        positional = dict(zip(cls.known, args, strict=False))
        if len(args) > len(cls.known) or given.keys() & positional:
            raise TypeError(f"{cls.__name__}: too many arguments")
        given = positional | given
        for name, value in list(given.items()):
            if name not in cls.known:
                raise TypeError(f"{cls.__name__}: argument {name!r} is not supported")
            if isinstance(value, str) and isinstance(cls.known[name].default, tuple):
                value = given[name] = (value,)  # ("DownBlock2D") is no tuple, but is meant as one
            supported = cls.known[name].supported
            if supported is not None and value not in supported:
                expected = " or ".join(map(repr, supported))
                raise ValueError(
                    f"{cls.__name__}: not supported: {name}={value!r}, expected {expected}"
                )
        values = {name: given.get(name, entry.default) for name, entry in cls.known.items()}
        return Config(values, defaulted=frozenset(cls.known.keys() - given))

    @classmethod
    def from_config(cls, config: dict, **changes):
        """An object with the settings of a config, of this class or of another scheduler.

        A setting that neither has raises ValueError. What only another scheduler has stays in the
        new config, so that it is not lost on the way back.
        """
        defaulted = config.defaulted if isinstance(config, Config) else frozenset()
        values = {}
        for name, value in config.items():
            if name not in defaulted and not name.startswith("_"):
                values[name] = value
        values |= changes
        for name in values:
            if name not in cls.known and name not in cls.foreign:
                raise ValueError(f"{cls.__name__}: setting {name!r} is not supported")
        made = cls(**{name: value for name, value in values.items() if name in cls.known})
        made.config = Config(values | made.config, made.config.defaulted, made.config.native)
        return made

    @classmethod
    def load_config(
        cls, pretrained_model_name_or_path: str | Path, subfolder: str | None = None, **hub
    ) -> dict:
        """The settings in a folder, or under a name of the hub."""
        file = find(pretrained_model_name_or_path, subfolder, cls.FILE, hub)
        return read_json(file, dict[str, Any])

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, subfolder: str | None = None, **options
    ):
        """The object saved in a folder or under a name of the hub.

        options are the hub's, or change settings.
        """
        hub = {name: options.pop(name) for name in HUB if name in options}
        file = find(pretrained_model_name_or_path, subfolder, cls.FILE, hub)
        return cls.of_file(file, options)

    @classmethod
    def of_file(cls, file: Path, changes: dict[str, Any]):
        """An object with the settings in a file, some of them changed.

        InputError, which names the file: a setting there is not supported, or of a wrong type.
        """
        config = read_json(file, dict[str, Any])
        check_settings(config, file, cls._table, cls.foreign)
        try:
            return cls.from_config(config, **changes)
        except ValueError as error:
            if changes:  # which may be what is wrong
                raise
            raise InputError(f"{file}: {error}") from None

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False) -> None:
        """Write the settings where from_pretrained and diffusers find them."""
        self.support(push_to_hub=(push_to_hub, False))
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        entries = {**self.config, "_class_name": type(self).__name__}
        text = json.dumps(entries, indent=2, sort_keys=True, default=lambda array: array.tolist())
        Path(save_directory, self.FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def support(cls, **arguments: tuple[Any, Any]) -> None:
        """ValueError for the first (value, only supported value) whose parts differ."""
        for name, (value, supported) in arguments.items():
            if value != supported:
                raise ValueError(
                    f"{cls.__name__}: not supported: {name}={value!r}, expected {supported!r}"
                )


class ConfiguredModel(Configured, nn.Module):
    """A network with such settings; its weights lie beside them."""

    foreign = AVERAGING

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
        """The network in eval mode, in float32 unless torch_dtype says otherwise.

        The file must hold every weight in its shape, and no other.
        """
        cls.support(use_safetensors=(use_safetensors is not False, True))
        hub = {name: options.pop(name) for name in HUB if name in options}
        config = find(pretrained_model_name_or_path, subfolder, cls.FILE, hub)
        file = find(pretrained_model_name_or_path, subfolder, _weights_file(variant), hub)
        with sized_by(file, read_json(config, dict[str, Any])):  # on the meta device
            model = cls.of_file(config, options)
        load_into(model, read_weights(file), file)
        return model.to(torch_dtype or torch.float32).eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        save_function: Callable[..., None] | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
    ) -> None:
        """Write config.json and diffusion_pytorch_model.safetensors, whatever its size.

        Only the main process writes.
        """
        self.support(
            save_function=(save_function, None), safe_serialization=(safe_serialization, True)
        )
        if is_main_process:
            self.save_config(save_directory, push_to_hub)
            write_weights(Path(save_directory, _weights_file(variant)), self.state_dict())

    def register_to_config(self, **changes: Any) -> None:
        """Change what the config says; whoever changes layers makes it say so."""
        unknown = changes.keys() - self.known.keys() - self.foreign
        if unknown:
            raise ValueError(f"{type(self).__name__}: setting {min(unknown)!r} is not supported")
        values = {**self.config, **changes}
        given = self.settings((), {k: v for k, v in values.items() if k in self.known})
        defaulted = self.config.defaulted - changes.keys()
        self.config = Config(values, defaulted, self.native(given))

    @classmethod
    def native(cls, given: Config) -> Any:
        """The library's own config that these settings mean; ValueError if there is none."""
        raise NotImplementedError

    def enable_xformers_memory_efficient_attention(self, attention_op=None) -> None:
        """Nothing: attention goes through torch's own efficient kernels anyway."""
        self.support(attention_op=(attention_op, None))

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Nothing: see enable_xformers_memory_efficient_attention."""

    def set_attn_processor(self, processor) -> None:
        """Nothing, for the processors that are other ways to compute the same."""
        many = processor.values() if isinstance(processor, dict) else [processor]
        for one in many:
            name = type(one).__name__
            if name not in SAME_ATTENTION:
                expected = " or ".join(SAME_ATTENTION)
                raise ValueError(
                    f"{type(self).__name__}: set_attn_processor: not supported: {name}, "
                    f"expected {expected}"
                )

    def set_default_attn_processor(self) -> None:
        """Nothing: it is the only one."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many weights there are."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)


def _constructor(known: Mapping[str, Setting]) -> Callable[..., None]:
    """An __init__ whose signature is these settings, for scripts, help() and completion to read."""

    def __init__(self: Configured, *args: Any, **given: Any) -> None:
        self.set_up(self.settings(args, given))

    __init__.__signature__ = signature_of(known)  # type: ignore[attr-defined]
    return __init__


def _property_of_config(name: str) -> property:
    return property(lambda self: self.config[name], doc=f"config.{name}")


def _weights_file(variant: str | None) -> str:
    return WEIGHTS.replace(".", f".{variant}.") if variant else WEIGHTS


def find(path: str | Path, subfolder: str | None, name: str, hub: dict) -> Path:
    """A file in a folder, in the hub's cache or on the hub; InputError where there is none."""
    folder = Path(path, subfolder or "")
    if (folder / name).is_file():
        return folder / name
    if Path(path).is_dir():
        raise InputError(f"{folder}: no {name} in it")
    try:
        return Path(hf_hub_download(str(path), name, subfolder=subfolder, **hub))
    except Exception as error:
        # the hub raises many kinds; each means that the file can't be had from there
        why = str(error).split("\n")[0]
        raise InputError(
            f"{path}: no such folder, and no {name} on the hub under this name ({why})"
        ) from None
