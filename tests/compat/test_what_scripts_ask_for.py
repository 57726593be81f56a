"""What scripts use besides networks and schedulers, against diffusers, one after another."""

import importlib
from importlib import metadata

import pytest
import torch
from scrambling import scrambled

from tinyldm import compat
from tinyldm.compat.native import network_recipe
from tinyldm.errors import InputError

diffusers = pytest.importorskip("diffusers")
from diffusers import optimization, training_utils  # noqa: E402 - only where diffusers is there
from diffusers.utils import pil_utils, torch_utils  # noqa: E402 - the same

pytestmark = pytest.mark.filterwarnings("ignore:__array__", "ignore:.*deprecated")

SHAPE = dict(
    sample_size=8,
    layers_per_block=1,
    block_out_channels=(8, 16),
    norm_num_groups=4,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)


@pytest.mark.parametrize("name", [n for n in compat.__all__ if "processor" not in n.lower()])
def test_every_name_is_one_of_diffusers(name):
    """At the top, in the optimisers' module, in the trainers' or in utils."""
    homes = (
        diffusers,
        optimization,
        training_utils,
        diffusers.utils,
        diffusers.utils.logging,
        diffusers.pipelines,
        torch_utils,
    )
    assert any(hasattr(home, name) for home in homes)
    assert getattr(compat, name) is not None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models", "UNet2DModel"),
        ("models.attention_processor", "AttnProcessor2_0"),
        ("models.attention_processor", "XFormersAttnProcessor"),
        ("models.autoencoders.autoencoder_kl", "AutoencoderKL"),
        ("models.unets.unet_2d", "UNet2DModel"),
        ("models.unets.unet_2d_condition", "UNet2DConditionModel"),
        ("optimization", "get_cosine_schedule_with_warmup"),
        ("optimization", "get_scheduler"),
        ("pipelines", "DDPMPipeline"),
        ("pipelines.ddim.pipeline_ddim", "DDIMPipeline"),
        ("pipelines.pipeline_utils", "DiffusionPipeline"),
        ("schedulers", "DDIMScheduler"),
        ("schedulers.scheduling_ddim", "DDIMScheduler"),
        ("schedulers.scheduling_ddpm", "DDPMScheduler"),
        ("schedulers.scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler"),
        ("schedulers.scheduling_euler_ancestral_discrete", "EulerAncestralDiscreteScheduler"),
        ("schedulers.scheduling_euler_discrete", "EulerDiscreteScheduler"),
        ("schedulers.scheduling_flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler"),
        ("schedulers.scheduling_heun_discrete", "HeunDiscreteScheduler"),
        ("schedulers.scheduling_pndm", "PNDMScheduler"),
        ("schedulers.scheduling_unipc_multistep", "UniPCMultistepScheduler"),
        ("training_utils", "EMAModel"),
        ("training_utils", "compute_snr"),
        ("utils", "WEIGHTS_NAME"),
        ("utils", "make_image_grid"),
        ("utils", "is_accelerate_version"),
        ("utils.logging", "set_verbosity_info"),
        ("utils.torch_utils", "is_compiled_module"),
        ("utils.torch_utils", "randn_tensor"),
        ("utils.import_utils", "is_xformers_available"),
    ],
)
def test_paths_are_those_of_diffusers(path, name):
    theirs = getattr(importlib.import_module(f"diffusers.{path}"), name)
    ours = getattr(importlib.import_module(f"tinyldm.compat.{path}"), name)
    assert ours is getattr(compat, name)
    if isinstance(theirs, str):
        assert ours == theirs
    else:
        assert ours.__name__ == theirs.__name__


def test_a_name_that_is_not_here_says_so():
    with pytest.raises(ImportError, match="ControlNetModel"):
        from tinyldm.compat.models import ControlNetModel  # noqa: F401
    with pytest.raises(AttributeError, match=r"it gives .*DDIMScheduler"):
        _ = compat.ControlNetModel
    with pytest.raises(ModuleNotFoundError, match="loaders"):
        importlib.import_module("tinyldm.compat.loaders")


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda package: {"accelerate": "1.10.0"}[package])
    for operation, version, expected in [
        (">=", "1.9.0", True),
        ("<", "1.9.0", False),
        ("==", "1.10", True),
        ("!=", "1.10.0", False),
        (">", "1.10.0.dev0", True),
        ("<=", "0.16.0", False),
    ]:
        assert compat.is_accelerate_version(operation, version) is expected, (operation, version)
    with pytest.raises(ValueError, match="expected one of >, >="):
        compat.is_accelerate_version("=", "1.0")
    monkeypatch.undo()
    monkeypatch.setattr(metadata, "version", absent)
    assert compat.is_accelerate_version("!=", "1.9.0") is False


def absent(package):
    raise metadata.PackageNotFoundError(package)


def test_a_compiled_module_is_told():
    module = torch.nn.Linear(2, 2)
    for lib in (compat, torch_utils):
        assert not lib.is_compiled_module(module)
        assert lib.is_compiled_module(torch.compile(module))


SCHEDULES = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine_with_restarts", dict(num_cycles=3)),
    ("polynomial", dict(power=2.0)),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("piecewise_constant", dict(step_rules="1:4,0.1:7,0.05")),
]


@pytest.mark.parametrize(("name", "more"), SCHEDULES)
def test_learning_rates(name, more):
    found = []
    for lib in (compat, optimization):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        schedule = lib.get_scheduler(
            name, optimizer, num_warmup_steps=3, num_training_steps=12, **more
        )
        rates = []
        for _ in range(15):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        found.append(rates)
    assert found[0] == pytest.approx(found[1], abs=1e-12)
    assert len(set(found[1])) > 1 or name == "constant"


def test_learning_rates_refuse_what_they_do_not_know():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    with pytest.raises(ValueError, match=r"'cosin', expected one of linear, cosine"):
        compat.get_scheduler("cosin", optimizer)
    with pytest.raises(ValueError, match="cosine needs num_warmup_steps"):
        compat.get_scheduler("cosine", optimizer)
    with pytest.raises(ValueError, match="lr_end"):
        compat.get_polynomial_decay_schedule_with_warmup(optimizer, 1, 4, lr_end=0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(decay=0.6),
        dict(use_ema_warmup=True, power=0.75),
        dict(min_decay=0.3, update_after_step=2, foreach=True),
    ],
)
def test_averages(settings):
    found = []
    for lib in (compat, training_utils):
        g = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(3, generator=g)) for _ in range(2)]
        weights[1].requires_grad_(False)
        ema = lib.EMAModel(weights, **settings)
        decays = []
        for _ in range(6):
            with torch.no_grad():
                for weight in weights:
                    weight += torch.randn(3, generator=g)
            ema.step(weights)
            decays.append(ema.cur_decay_value)
        ema.store(weights)
        before = [w.detach().clone() for w in weights]
        ema.copy_to(weights)
        found.append((decays, [w.detach().clone() for w in weights], ema.state_dict()))
        ema.restore(weights)
        assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    assert found[0][2].keys() == found[1][2].keys()
    again = compat.EMAModel([torch.nn.Parameter(torch.zeros(3)) for _ in range(2)])
    again.load_state_dict(found[1][2])  # that of diffusers
    assert again.optimization_step == 6
    with pytest.raises(RuntimeError, match="store"):
        again.restore([])
    with pytest.raises(ValueError, match="nonsense"):
        again.load_state_dict({"nonsense": 1})


def test_image_grid():
    images = pil_utils.pt_to_pil(torch.rand(4, 3, 5, 6) * 2 - 1)
    for more in ({}, {"resize": 7}):
        ours = compat.make_image_grid(images, rows=2, cols=2, **more)
        theirs = pil_utils.make_image_grid(images, rows=2, cols=2, **more)
        assert ours.tobytes() == theirs.tobytes()
    with pytest.raises(ValueError, match="4 images"):
        compat.make_image_grid(images, rows=2, cols=3)
    batch = torch.rand(2, 1, 4, 5) * 2 - 1
    for mine, other in zip(compat.pt_to_pil(batch), pil_utils.pt_to_pil(batch), strict=True):
        assert (mine.mode, mine.tobytes()) == (other.mode, other.tobytes())


def test_noise_of_one_or_more_generators():
    for seeds in ([3], [3, 5]):
        found = []
        for lib in (compat, torch_utils):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            given = generators if len(seeds) > 1 else generators[0]
            found.append(lib.randn_tensor((2, 3), generator=given, dtype=torch.float64))
        assert torch.equal(*found)


def saved_bytes(network, *inputs):
    """What a forward pass keeps for the way back, and the gradients that come of it."""
    kept = 0

    def pack(tensor):
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(*inputs).sample.square().mean()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    return kept, gradients


def test_gradient_checkpointing_keeps_less_and_computes_the_same():
    network = scrambled(compat.UNet2DModel(**SHAPE), 0).train()
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    plain, expected = saved_bytes(network, x, t)
    assert not network.is_gradient_checkpointing
    network.enable_gradient_checkpointing()
    assert network.is_gradient_checkpointing
    less, gradients = saved_bytes(network, x, t)
    assert less < 0.5 * plain
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    network.disable_gradient_checkpointing()
    assert saved_bytes(network, x, t)[0] == plain


def test_ways_to_compute_attention():
    network = compat.UNet2DModel(**SHAPE)
    network.set_attn_processor(compat.AttnProcessor())
    network.set_attn_processor({"down": diffusers.models.attention_processor.AttnProcessor2_0()})
    network.set_default_attn_processor()
    compat.AutoencoderKL(norm_num_groups=4).set_attn_processor(compat.AttnProcessor2_0())
    network.enable_xformers_memory_efficient_attention()
    network.disable_xformers_memory_efficient_attention()

    class LoRAAttnProcessor:
        pass

    with pytest.raises(ValueError, match=r"UNet2DModel: set_attn_processor.*LoRAAttnProcessor"):
        network.set_attn_processor(LoRAAttnProcessor())
    with pytest.raises(AttributeError, match="attn_processors"):
        _ = network.attn_processors  # none: scripts would replace one by one and train nothing


def test_a_string_where_types_are_expected():
    """("CrossAttnDownBlock2D") is a string; with one level it can mean but one thing."""
    made = compat.UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=6,
        attention_head_dim=2,
    )
    assert made.config.down_block_types == ("CrossAttnDownBlock2D",)
    with pytest.raises(ValueError, match=r"down_block_types is .*, expected 2 types"):
        compat.UNet2DModel(**SHAPE | dict(down_block_types=("DownBlock2D")))
    vae = compat.AutoencoderKL(down_block_types="DownEncoderBlock2D", norm_num_groups=4)
    assert vae.config.down_block_types == ("DownEncoderBlock2D",)


def test_negative_log_likelihood_of_latents():
    settings = dict(block_out_channels=(8,), norm_num_groups=4)
    theirs = scrambled(diffusers.AutoencoderKL(**settings), 0)
    ours = compat.AutoencoderKL(**settings)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        mine, other = (vae.encode(x).latent_dist for vae in (ours, theirs))
    z = torch.randn_like(mine.mean)
    torch.testing.assert_close(mine.nll(z), other.nll(z), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(mine.nll(z, dims=[1]), other.nll(z, dims=[1]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["UNet2DModel", "UNet2DConditionModel"])
@pytest.mark.parametrize("embedding", ["identity", "timestep"])
def test_class_embeddings_in_folders_both_ways(kind, embedding, tmp_path):
    settings = SHAPE | dict(class_embed_type=embedding, in_channels=3, out_channels=3)
    more = {}
    if kind == "UNet2DConditionModel":
        settings |= dict(cross_attention_dim=6, attention_head_dim=2)
        settings["down_block_types"] = ("DownBlock2D", "CrossAttnDownBlock2D")
        settings["up_block_types"] = ("CrossAttnUpBlock2D", "UpBlock2D")
        more["encoder_hidden_states"] = torch.randn(2, 3, 6)
    theirs = scrambled(getattr(diffusers, kind)(**settings), 0)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(compat, kind).from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    back = getattr(diffusers, kind).from_pretrained(tmp_path / "ours")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    labels = torch.randn(2, 32) if embedding == "identity" else torch.tensor([2.0, 40.0])
    with torch.no_grad():
        expected = theirs(x, t, class_labels=labels, **more).sample
        for network in (ours, back):
            got = network(x, t, class_labels=labels, **more).sample
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="class_labels"):
            ours(x, t, **more)


def test_a_replaced_layer_is_no_recipe_for_a_run():
    network = compat.UNet2DModel(num_class_embeds=5, **SHAPE)
    assert network_recipe(network)["classes"] == 5
    network.class_embedding = torch.nn.Linear(24, 32)
    with pytest.raises(ValueError, match="class_embedding"):
        network_recipe(network)


def test_the_config_of_a_model_changes_in_place():
    for lib in (compat, diffusers):
        network = lib.UNet2DModel(**SHAPE)
        network.register_to_config(sample_size=16)
        assert network.config.sample_size == 16
        assert network.config.layers_per_block == 1
    with pytest.raises(ValueError, match="nonsense"):
        compat.UNet2DModel(**SHAPE).register_to_config(nonsense=1)
    with pytest.raises(ValueError, match="act_fn"):
        compat.UNet2DModel(**SHAPE).register_to_config(act_fn="gelu")


def test_what_a_pipeline_refuses(tmp_path):
    pipeline = compat.DDPMPipeline(compat.UNet2DModel(**SHAPE), compat.DDPMScheduler())
    with pytest.raises(ValueError, match="push_to_hub"):
        pipeline.save_pretrained(tmp_path, push_to_hub=True)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="custom_pipeline"):
        compat.DDPMPipeline.from_pretrained(tmp_path, custom_pipeline="x")
    other = compat.DDIMScheduler()
    assert compat.DDPMPipeline.from_pretrained(tmp_path, scheduler=other).scheduler is other
    text = (tmp_path / "model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(text.replace("UNet2DModel", "VQModel"))
    with pytest.raises(InputError, match=r"model_index\.json: unet is 'VQModel'"):
        compat.DDPMPipeline.from_pretrained(tmp_path)
