"""Every argument has diffusers' name and place, so that scripts may give it in either way."""

import inspect

import pytest
import torch

from tinyldm import compat

diffusers = pytest.importorskip("diffusers")
# what diffusers takes through **kwargs
KEYWORDS = {"subfolder", "torch_dtype", "variant", "use_safetensors", "timestep"}


def arguments(method):
    """(names that have a place, names that are only keywords, whether others are taken)."""
    p = inspect.signature(method).parameters.values()
    return ([a.name for a in p if a.kind == a.POSITIONAL_OR_KEYWORD and a.name != "self"],
            {a.name for a in p if a.kind == a.KEYWORD_ONLY}, any(a.kind == a.VAR_KEYWORD for a in p))  # fmt: skip


def shared(kind):
    """The public methods that a class of ours has of diffusers' class of that name, other than torch's."""
    ours, theirs = getattr(compat, kind), getattr(diffusers, kind)
    own = {name for base in ours.__mro__ if base.__module__.startswith("tinyldm.compat") for name in vars(base)}
    names = [name for name in sorted(own) if name[0] != "_" and callable(getattr(theirs, name, None))]
    return [(name, getattr(ours, name), getattr(theirs, name)) for name in names]


@pytest.mark.parametrize("kind", compat.__all__)
def test_arguments_have_their_names_and_places(kind):
    methods = shared(kind)
    required = {"from_config", "from_pretrained", "save_pretrained"} | (
        {"step", "add_noise", "set_timesteps", "scale_model_input"} if "Scheduler" in kind else {"forward"})
    assert required <= {name for name, *_ in methods}
    for name, our, their in methods:
        (places, keywords, _), (expected, more, open_) = arguments(our), arguments(their)
        known = {*expected, *more} | (KEYWORDS if open_ else set())
        # every one of our schedulers takes a list of timesteps
        assert {*places, *keywords} - known <= {"timesteps"}, f"{kind}.{name}"
        if name != "set_timesteps":  # mu comes before timesteps in one of them, and belongs to flows
            given = [place for place in places if place in expected]
            assert given == [place for place in expected if place in given], f"{kind}.{name}"


def test_what_saving_does_not_support_is_named(tmp_path):
    scheduler = compat.DDIMScheduler()
    unet = compat.UNet2DModel(block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownBlock2D",),
                              up_block_types=("UpBlock2D",))  # fmt: skip
    with pytest.raises(ValueError, match="safe_serialization"):
        unet.save_pretrained(tmp_path, safe_serialization=False)
    for made in (scheduler, unet):
        with pytest.raises(TypeError, match="push_to_hub"):
            made.save_pretrained(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())
    unet.save_pretrained(save_directory=tmp_path, safe_serialization=True, variant="fp16")
    for lib in (compat, diffusers):
        again = lib.UNet2DModel.from_pretrained(pretrained_model_name_or_path=tmp_path, variant="fp16")
        assert all(torch.equal(w, unet.state_dict()[name]) for name, w in again.state_dict().items())


def test_settings_change_in_place():
    """As training scripts do it with --prediction_type; each library goes on with the changed setting."""
    x, noise = torch.full((1, 4), 0.3), torch.full((1, 4), -0.2)
    found = []
    for lib in (compat, diffusers):
        scheduler = lib.DDIMScheduler(beta_end=0.01, clip_sample=False)
        scheduler.register_to_config(prediction_type="v_prediction")
        scheduler.set_timesteps(10)
        assert scheduler.config.prediction_type == "v_prediction" and scheduler.config.beta_end == 0.01
        found.append(scheduler.step(noise, 900, x).prev_sample)
    torch.testing.assert_close(*found)
    kept = compat.DDIMScheduler.from_config({"beta_end": 0.01, "skip_prk_steps": True})
    kept.register_to_config(num_train_timesteps=2000)
    assert kept.config.skip_prk_steps is True and len(kept) == 2000 == len(kept.timesteps)
    with pytest.raises(ValueError, match="nonsense"):
        kept.register_to_config(nonsense=1)
