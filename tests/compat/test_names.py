"""Every argument has diffusers' name and place, so that scripts may give it in either way."""

import inspect

import pytest
import torch

from tinyldm import compat
from tinyldm.compat.settings import SETTINGS

diffusers = pytest.importorskip("diffusers")
CLASSES = [name for name in compat.__all__ if name in SETTINGS]
# what diffusers takes through **kwargs
KEYWORDS = {"subfolder", "torch_dtype", "variant", "use_safetensors", "timestep"}


def arguments(method):
    """(names that have a place, names that are only keywords, whether others are taken)."""
    p = inspect.signature(method).parameters.values()
    return (
        [a.name for a in p if a.kind == a.POSITIONAL_OR_KEYWORD and a.name != "self"],
        {a.name for a in p if a.kind == a.KEYWORD_ONLY},
        any(a.kind == a.VAR_KEYWORD for a in p),
    )


def shared(kind):
    """The public methods that a class of ours has of diffusers' class of that name, other than
    torch's."""
    ours, theirs = getattr(compat, kind), getattr(diffusers, kind)
    own = {
        name
        for base in ours.__mro__
        if base.__module__.startswith("tinyldm.compat")
        for name in vars(base)
    }
    names = [
        name for name in sorted(own) if name[0] != "_" and callable(getattr(theirs, name, None))
    ]
    return [(name, getattr(ours, name), getattr(theirs, name)) for name in names]


@pytest.mark.parametrize("kind", CLASSES)
def test_arguments_have_their_names_and_places(kind):
    methods = shared(kind)
    required = {"from_config", "from_pretrained", "save_pretrained"} | (
        {"step", "add_noise", "set_timesteps", "scale_model_input"}
        if "Scheduler" in kind
        else {"forward"}
    ) & vars(getattr(diffusers, kind)).keys()
    assert required <= {name for name, *_ in methods}
    for name, our, their in methods:
        (places, keywords, _), (expected, more, open_) = arguments(our), arguments(their)
        known = {*expected, *more} | (KEYWORDS if open_ else set())
        # every one of our schedulers takes a list of timesteps
        assert {*places, *keywords} - known <= {"timesteps"}, f"{kind}.{name}"
        if (
            name != "set_timesteps"
        ):  # mu comes before timesteps in one of them, and belongs to flows
            given = [place for place in places if place in expected]
            assert given == [place for place in expected if place in given], f"{kind}.{name}"


def test_what_saving_does_not_support_is_named(tmp_path):
    scheduler = compat.DDIMScheduler()
    unet = compat.UNet2DModel(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(ValueError, match="safe_serialization"):
        unet.save_pretrained(tmp_path, safe_serialization=False)
    for made in (scheduler, unet):
        with pytest.raises(ValueError, match="push_to_hub"):
            made.save_pretrained(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())
    unet.save_pretrained(save_directory=tmp_path, safe_serialization=True, variant="fp16")
    for lib in (compat, diffusers):
        again = lib.UNet2DModel.from_pretrained(
            pretrained_model_name_or_path=tmp_path, variant="fp16"
        )
        assert all(
            torch.equal(w, unet.state_dict()[name]) for name, w in again.state_dict().items()
        )


BETAS = {
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
    "steps_offset",
}
CLIPPING = {"clip_sample", "clip_sample_range"}
THRESHOLDING = {"thresholding", "dynamic_thresholding_ratio", "sample_max_value"}
NETWORK = {
    "sample_size",
    "in_channels",
    "out_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "layers_per_block",
    "dropout",
    "norm_num_groups",
    "norm_eps",
    "attention_head_dim",
    "num_class_embeds",
    "time_embedding_dim",
}
FREE = {  # what takes values of any kind, each compared with diffusers elsewhere
    "DDPMScheduler": BETAS | CLIPPING | THRESHOLDING,
    "DDIMScheduler": BETAS | CLIPPING | THRESHOLDING | {"set_alpha_to_one"},
    "DPMSolverMultistepScheduler": BETAS
    | THRESHOLDING
    | {"lower_order_final", "euler_at_final", "lambda_min_clipped"}
    | {"use_karras_sigmas", "use_lu_lambdas"},
    "EulerDiscreteScheduler": BETAS | {"use_karras_sigmas"},
    "EulerAncestralDiscreteScheduler": BETAS,
    "PNDMScheduler": BETAS | {"skip_prk_steps", "set_alpha_to_one"},
    "UniPCMultistepScheduler": BETAS
    | THRESHOLDING
    | {"lower_order_final", "disable_corrector", "use_karras_sigmas"},
    "HeunDiscreteScheduler": BETAS | CLIPPING | {"use_karras_sigmas"},
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps",
        "shift",
        "base_shift",  # of dynamic shifting, which is refused: they say nothing without it
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
    },
    "UNet2DConditionModel": NETWORK
    | {
        "cross_attention_dim",
        "transformer_layers_per_block",
        "use_linear_projection",
        "upcast_attention",
        "projection_class_embeddings_input_dim",
    },
    "UNet2DModel": NETWORK | {"attn_norm_num_groups", "add_attention", "num_train_timesteps"},
    "AutoencoderKL": {
        "in_channels",
        "out_channels",
        "block_out_channels",
        "layers_per_block",
        "latent_channels",
        "norm_num_groups",
        "sample_size",
        "scaling_factor",
        "shift_factor",
        "latents_mean",
        "latents_std",
        "force_upcast",
        "use_quant_conv",
        "use_post_quant_conv",
        "mid_block_add_attention",
    },
}


@pytest.mark.parametrize("kind", CLASSES)
def test_any_other_argument_is_refused_by_its_name(kind):
    """One after the other is given a value that diffusers does not have by itself."""
    for name, p in inspect.signature(getattr(diffusers, kind).__init__).parameters.items():
        if name != "self" and name not in FREE[kind]:
            with pytest.raises(ValueError, match=rf"{kind}.*\b{name}\b"):
                getattr(compat, kind)(
                    **{name: not p.default if isinstance(p.default, bool) else "nonsense"}
                )


@pytest.mark.filterwarnings("ignore:Accessing config attribute", "ignore:__array__")
def test_older_ways_to_read_outputs_and_settings():
    """As scripts of 2022 have them: unet(...)["sample"], unet.in_channels."""
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for lib in (compat, diffusers):
        unet = lib.UNet2DModel(
            in_channels=4,
            out_channels=4,
            block_out_channels=(8,),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
        )
        out = unet(x, 3)
        assert out["sample"] is out.sample is out[0] is out.to_tuple()[0]
        assert unet.in_channels == 4
        scheduler = lib.DPMSolverMultistepScheduler(num_train_timesteps=500)
        scheduler.set_timesteps(4)
        out = scheduler.step(x, scheduler.timesteps[0], x)
        assert out["prev_sample"] is out[0] is out.prev_sample
        assert len(out.to_tuple()) == 1
        assert scheduler.num_train_timesteps == 500
        assert scheduler.prediction_type == "epsilon"
        vae = lib.AutoencoderKL(in_channels=4, block_out_channels=(8,), norm_num_groups=4)
        out = vae.encode(x)
        assert out["latent_dist"] is out.latent_dist is out[0]
        assert vae.latent_channels == 4
    with pytest.raises(AttributeError, match="weight"):
        _ = compat.DDIMScheduler().weight


def test_settings_change_in_place():
    """As training scripts do it with --prediction_type; each library goes on with the changed
    setting."""
    x, noise = torch.full((1, 4), 0.3), torch.full((1, 4), -0.2)
    found = []
    for lib in (compat, diffusers):
        scheduler = lib.DDIMScheduler(beta_end=0.01, clip_sample=False)
        scheduler.register_to_config(prediction_type="v_prediction")
        scheduler.set_timesteps(10)
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.config.beta_end == 0.01
        found.append(scheduler.step(noise, 900, x).prev_sample)
    torch.testing.assert_close(*found)
    kept = compat.DDIMScheduler.from_config({"beta_end": 0.01, "skip_prk_steps": True})
    kept.register_to_config(num_train_timesteps=2000)
    assert kept.config.skip_prk_steps is True
    assert len(kept) == 2000 == len(kept.timesteps)
    with pytest.raises(ValueError, match="nonsense"):
        kept.register_to_config(nonsense=1)
