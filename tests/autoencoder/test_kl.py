"""The autoencoder against diffusers', on files of the published layouts, and on others."""

import json

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL, Downsample
from tinyldm.errors import InputError

SMALL = {"block_out_channels": [8, 16, 16], "layers_per_block": 2, "norm_num_groups": 4}
# config.json as CompVis/stable-diffusion-v1-4 has it in its folder vae
PUBLISHED = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def oracle(**options):
    """diffusers' autoencoder with random weights everywhere, norms too."""
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    model = diffusers.AutoencoderKL(**SMALL, **blocks, **options)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def write(folder, config, weights, name="diffusion_pytorch_model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: w.contiguous() for key, w in weights.items()}, folder / name)
    return folder


@pytest.fixture
def saved(tmp_path):
    """A small autoencoder on disk, its config and its weights."""
    weights = AutoencoderKL(AutoencoderConfig(**SMALL)).state_dict()
    return write(tmp_path / "saved", SMALL, weights), dict(SMALL), weights


@pytest.mark.parametrize(
    "options",
    [
        {"latent_channels": 6},
        {"mid_block_add_attention": False},
        {"use_quant_conv": False, "use_post_quant_conv": False},
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_diffusers(tmp_path, options):
    theirs = oracle(**options)
    theirs.save_pretrained(tmp_path)
    ours = AutoencoderKL.load(tmp_path)
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior, expected = ours.encode(images), theirs.encode(images).latent_dist
    torch.testing.assert_close(posterior.mean, expected.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.std, expected.std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.kl().sum((1, 2, 3)), expected.kl(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(
        ours.decode(posterior.mean), theirs.decode(expected.mean).sample, rtol=1e-4, atol=1e-4
    )
    assert (ours.factor, ours.latent_channels) == (4, options.get("latent_channels", 4))


def old_names(weights, convolutions):
    """The weights under the names of 2022, attention as linear layers or as 1x1 convolutions."""
    written = {}
    for key, weight in weights.items():
        if ".attentions." in key:
            for new, old in OLD.items():
                key = key.replace(f".{new}.", f".{old}.")
            weight = weight[..., None, None] if convolutions and weight.ndim == 2 else weight
        written[key] = weight
    return written


@pytest.mark.slow
@torch.no_grad()
def test_loads_the_published_size_and_layout(tmp_path):
    with torch.device("meta"):
        shapes = {
            key: w.shape for key, w in AutoencoderKL(AutoencoderConfig()).state_dict().items()
        }
    assert sum(shape.numel() for shape in shapes.values()) == 83_653_863
    weights = {key: torch.full(shape, 0.01) for key, shape in shapes.items()}
    marked = "decoder.mid_block.attentions.0.to_v.weight"
    weights[marked] = torch.arange(512 * 512.0).view(512, 512)
    written = old_names(weights, convolutions=False)
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in written
    write(tmp_path / "model" / "vae", PUBLISHED, written)
    vae = AutoencoderKL.load(tmp_path / "model", subfolder="vae")
    assert vae.config.scaling_factor == 0.18215
    assert vae.factor == 8
    assert torch.equal(vae.state_dict()[marked], weights[marked])
    assert not vae.training
    assert vae.dtype == torch.float32


@pytest.mark.parametrize("convolutions", [False, True])
def test_old_attention_names(tmp_path, saved, convolutions):
    folder, config, weights = saved
    write(tmp_path / "model" / "vae", config, old_names(weights, convolutions))
    for old in (
        AutoencoderKL.load(tmp_path / "model"),
        AutoencoderKL.load(tmp_path / "model", subfolder="vae"),
    ):
        assert old.fingerprint == AutoencoderKL.load(folder).fingerprint


def test_saved_by_transformers_and_read_back(tmp_path, saved):
    folder, *_ = saved
    vae = AutoencoderKL.load(folder)
    vae.save_pretrained(tmp_path / "again")
    again = AutoencoderKL.load(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").is_file()
    assert (
        again.fingerprint
        == vae.fingerprint
        == AutoencoderKL.from_pretrained(tmp_path / "again").fingerprint
    )
    again.decoder.conv_out.bias.data[0] += 1e-3
    assert again.fingerprint != vae.fingerprint


def test_pitfall_26_half_precision_files_are_used_in_float32(saved):
    folder, config, weights = saved
    write(folder, config, {key: w.half() for key, w in weights.items()})
    vae, images = AutoencoderKL.load(folder), torch.rand(1, 3, 16, 16)
    exact = vae.encode(images).mean
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vae.encode(images).mean, exact)
        assert exact.dtype == torch.float32
    with pytest.raises(ValueError, match="float32"):
        vae.bfloat16().encode(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder.conv_in.bias"), "missing encoder.conv_in.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda w: w.update({"encoder.conv_in.bias": torch.zeros(9)}),
            r"bias has shape \(9,\), expected \(8,\)",
        ),
    ],
)
def test_weights_that_do_not_fit(saved, change, message):
    folder, config, weights = saved
    weights = dict(weights)
    change(weights)
    with pytest.raises(InputError, match=message):
        AutoencoderKL.load(write(folder, config, weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"act_fn": "relu"}, "act_fn"),
        ({"_class_name": "VQModel"}, "expected an AutoencoderKL, got .VQModel"),
        ({"model_type": "clip"}, "expected an AutoencoderKL, got"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "down_block_types"),
        ({"norm_num_groups": 3}, "norm_num_groups 3 does not divide"),
        ({"norm_num_groups": 0}, "config.json"),
        ({"layers_per_block": "2"}, "config.json"),
        ({"latent_channels": -4}, "config.json"),
        ({"shift_factor": 0.1}, "unknown key 'shift_factor'"),
    ],
)
def test_configs_that_do_not_fit(saved, change, message):
    folder, config, weights = saved
    with pytest.raises(InputError, match=message):
        AutoencoderKL.load(write(folder, config | change, weights))


def test_what_is_not_there(tmp_path, saved):
    folder, _config, weights = saved
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        AutoencoderKL.load(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="neither"):  # a pickle is never read
        AutoencoderKL.load(folder)
    (folder / "config.json").write_text("{")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="not JSON"):
        AutoencoderKL.load(folder)
    with pytest.raises(InputError, match=r"no config\.json in it or in its folder vae"):
        AutoencoderKL.load(tmp_path)
    with pytest.raises(InputError, match="a folder that exists"):
        AutoencoderKL.load(tmp_path / "none")


def unreachable(*_, **__):
    raise OSError("no network")


@pytest.mark.parametrize("subfolder", ["vae", None])
def test_unreachable_hub_says_how_to_fetch_after_one_question(monkeypatch, subfolder):
    """The hub's own download would ask again for minutes."""

    def fetch(*_, local_files_only=False, **__):
        assert local_files_only
        raise OSError("not in the cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    name = "CompVis/stable-diffusion-v1-4"
    files = "vae/config.json vae/diffusion_pytorch_model.safetensors"
    command = f"hf download {name} {files} --local-dir FOLDER"
    with pytest.raises(InputError, match=f"{command}.*--vae tiny") as caught:
        AutoencoderKL.load(name, subfolder=subfolder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cached", [True, False])
def test_hub_files_are_found_in_vae_too(monkeypatch, saved, cached):
    """In the cache, then without any question; or on the hub."""
    folder, *_ = saved
    asked = []

    def serve(name, file, subfolder=None, local_files_only=False):
        asked.append((name, file, subfolder))
        if subfolder != "vae" or not (folder / file).is_file() or local_files_only != cached:
            raise OSError("no such file")
        return str(folder / file)

    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", unreachable if cached else lambda *_, **__: None
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    assert (
        AutoencoderKL.load("somebody/model").fingerprint == AutoencoderKL.load(folder).fingerprint
    )
    assert all(name == "somebody/model" for name, *_ in asked)


@settings(max_examples=30)
@given(st.integers(1, 13), st.integers(1, 13))
def test_any_size_that_divides_and_no_other(h, w):
    torch.manual_seed(0)
    vae, images = (
        AutoencoderKL(AutoencoderConfig(**SMALL | {"block_out_channels": [8, 8]})),
        torch.rand(2, 3, h, w),
    )
    if h % 2 or w % 2:
        with pytest.raises(ValueError, match=rf"divisible by 2, got \(2, 3, {h}, {w}\)"):
            vae(images)
        return
    with torch.no_grad():
        latents, pictures = vae.encode(images).mean, vae(images)
        torch.testing.assert_close(vae(images[1:]), pictures[1:], rtol=1e-4, atol=1e-4)
    assert latents.shape == (2, 4, h // 2, w // 2)
    assert pictures.shape == images.shape


def test_sizes_and_training_are_checked(saved):
    vae = AutoencoderKL.load(saved[0])
    with pytest.raises(ValueError, match="divisible by 4"):
        vae.encode(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match="norm_num_groups"):
        AutoencoderConfig(block_out_channels=[12], norm_num_groups=8)


def test_posterior_samples_have_its_mean_and_spread(saved):
    posterior = AutoencoderKL.load(saved[0]).encode(torch.zeros(1, 3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([posterior.sample(generator) for _ in range(2000)])
    torch.testing.assert_close(
        draws.mean(0), posterior.mean, rtol=0, atol=0.12 * posterior.std.max().item()
    )
    torch.testing.assert_close(draws.std(0), posterior.std, rtol=0.1, atol=0)


def test_tiny_ships_and_reconstructs():
    vae = AutoencoderKL.load("tiny")
    assert vae.factor == 4
    images = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 64, 64)
    assert (vae(images) - images).abs().mean() < 0.05


def test_padding_on_the_way_down_is_at_the_right_and_the_bottom():
    """A convolution that only takes the last of its 3x3 places sees the padding at the end."""
    down = Downsample(1)
    torch.nn.init.zeros_(down.conv.weight)
    torch.nn.init.zeros_(down.conv.bias)
    down.conv.weight.data[0, 0, 2, 2] = 1
    x = torch.arange(1.0, 17).view(1, 1, 4, 4)
    assert down(x).flatten().tolist() == [11, 0, 0, 0]
    assert list(down.state_dict()) == ["conv.weight", "conv.bias"]
