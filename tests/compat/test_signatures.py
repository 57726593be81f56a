"""What inspect.signature says of each class, against diffusers, name by name; and what is missing.

Scripts read signatures: train_unconditional.py passes prediction_type only to a scheduler whose
constructor has an argument of that name, and trains for x0 or eps all the same.
"""

import inspect

import pytest
import torch

from tinyldm import compat
from tinyldm.compat.settings import SETTINGS

diffusers = pytest.importorskip("diffusers")

CLASSES = [name for name in compat.__all__ if name in SETTINGS]
MISSING_ARGUMENTS = {  # argument -> the methods without it; none of a constructor's is missing
    "args": {"scale_model_input"},  # *args and **kwargs, which the published classes ignore
    "kwargs": {"scale_model_input", "save_pretrained", "save_config"},
    "mu": {"set_timesteps"},  # of dynamic shifting
    "num_train_timesteps": {"set_timesteps"},  # of Heun, which takes it from its config
    "sigmas": {"set_timesteps"},  # of UniPC on flows
    "use_flashpack": {"save_pretrained"},
    "exclude_embeddings": {"num_parameters"},
    "return_unused_kwargs": {"from_config", "from_pretrained", "load_config"},
    "return_commit_hash": {"load_config"},
}
VERSION = tuple(map(int, diffusers.__version__.split(".")[:2]))
LATER = {  # arguments that diffusers 0.36 does not have -> the version that has them first
    **dict.fromkeys(("sigma_min", "sigma_max", "shift_terminal", "sigmas"), (0, 37)),  # of UniPC
    "use_flashpack": (0, 38),
}
TOO_NEW = {name for name, version in LATER.items() if version > VERSION}
SAME_IN_OTHER_WORDS = {"changes", "hub", "options"}  # our names of **kwargs


def parameters(function):
    """The parameters of a function, by name, without self."""
    found = dict(inspect.signature(function).parameters)
    found.pop("self", None)
    return found


@pytest.mark.parametrize("kind", CLASSES)
def test_constructors_have_the_signatures_of_diffusers(kind):
    """Names, order and defaults, of __init__ and of the class, which help() shows."""
    theirs = parameters(getattr(diffusers, kind).__init__)
    for shown in (getattr(compat, kind).__init__, getattr(compat, kind)):
        ours = parameters(shown)
        if kind == "UniPCMultistepScheduler":
            ours = {name: ours[name] for name in ours if name not in TOO_NEW}
        assert list(ours) == list(theirs)
        for name, parameter in ours.items():
            default = theirs[name].default
            expected = tuple(default) if isinstance(default, list) else default
            assert parameter.default == expected, name
            assert parameter.kind is theirs[name].kind, name


@pytest.mark.parametrize("kind", CLASSES)
def test_every_default_is_supported(kind):
    for name, setting in SETTINGS[kind].items():
        assert setting.supported is None or setting.default in setting.supported, name


def public_methods(kind):
    """The methods of a class of ours that diffusers' class has too, torch's aside."""
    own = set()
    for base in getattr(compat, kind).__mro__:
        if base.__module__.startswith("tinyldm.compat"):
            own |= vars(base).keys()
    theirs = getattr(diffusers, kind)
    return [name for name in sorted(own) if name[0] != "_" and callable(getattr(theirs, name, 0))]


def test_the_missing_arguments_of_methods_are_listed():
    missing = {}
    for kind in CLASSES:
        for method in public_methods(kind):
            got = parameters(getattr(getattr(compat, kind), method)).keys()
            expected = parameters(getattr(getattr(diffusers, kind), method)).keys()
            if got & SAME_IN_OTHER_WORDS:
                expected = expected - {"kwargs"}
            for name in expected - got:
                missing.setdefault(name, set()).add(method)
    known = {name: MISSING_ARGUMENTS[name] for name in MISSING_ARGUMENTS.keys() - TOO_NEW}
    assert missing == known


def test_a_script_that_asks_for_an_argument_finds_it():
    """As train_unconditional.py does; where it finds none, it samples x0 as if it were eps."""
    for lib in (compat, diffusers):
        accepts = "prediction_type" in inspect.signature(lib.DDPMScheduler.__init__).parameters
        assert accepts
        scheduler = lib.DDPMScheduler(prediction_type="sample", clip_sample=False)
        x0 = torch.full((1, 2), 0.25)
        step = scheduler.step(x0, 999, torch.ones(1, 2))
        assert torch.equal(step.pred_original_sample, x0)


def test_arguments_by_position_and_twice():
    scheduler = compat.DDIMScheduler(500, 0.001)
    assert (scheduler.config.num_train_timesteps, scheduler.config.beta_start) == (500, 0.001)
    with pytest.raises(TypeError, match="too many arguments"):
        compat.DDIMScheduler(500, num_train_timesteps=400)


def test_a_subclass_has_the_settings_of_its_class():
    class Mine(compat.DDIMScheduler):
        pass

    class Louder(compat.DDPMScheduler):
        def __init__(self, loud=1, **settings):
            super().__init__(**settings)
            self.loud = loud

    assert Mine(beta_end=0.01).config.beta_end == 0.01
    assert Mine.from_config({"beta_end": 0.03}).config.beta_end == 0.03
    assert Louder(loud=2, clip_sample=False).config.clip_sample is False
    assert "clip_sample" not in inspect.signature(Louder).parameters


def test_help_and_completion_show_the_supported_values():
    text = str(inspect.signature(compat.DDIMScheduler))
    assert "prediction_type: Literal['epsilon', 'sample', 'v_prediction'] = 'epsilon'" in text
