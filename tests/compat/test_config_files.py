"""The config files of diffusers go through the typed reader: a wrong value names file and key."""

import json
from types import SimpleNamespace

import diffusers
import pytest
import torch
from mutants import json_mutants

from tinyldm import compat
from tinyldm.compat.config import Configured
from tinyldm.errors import InputError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__", "ignore:.*deprecated", "ignore:the last"
)

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
CONDITIONAL = UNET | {
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}
PLAIN = UNET | {
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 4,
}
VAE = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}
MADE_OF = {"UNet2DConditionModel": CONDITIONAL, "UNet2DModel": PLAIN, "AutoencoderKL": VAE}
KINDS = sorted(
    name
    for name in compat.__all__
    if isinstance(kind := getattr(compat, name), type) and issubclass(kind, Configured)
)


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """A folder that diffusers has written, its config file, and the class that reads it."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    theirs = getattr(diffusers, request.param)(**MADE_OF.get(request.param, {}))
    theirs.save_pretrained(folder)
    ours = getattr(compat, request.param)
    file = folder / ours.FILE
    return SimpleNamespace(folder=folder, file=file, text=file.read_text(), ours=ours)


def test_every_setting_has_a_type(saved):
    """What diffusers writes is read; so each default of theirs is of the type that is asked for."""
    read = saved.ours.from_pretrained(saved.folder)
    for name, value in json.loads(saved.text).items():
        if not name.startswith("_"):
            ours = read.config[name]
            assert (list(ours) if isinstance(ours, tuple) else ours) == value, name


def test_a_wrong_value_is_one_line_that_names_file_and_key(saved):
    told = []
    tried = 0
    for (path, _), text in json_mutants(json.loads(saved.text), each=5):
        if path and str(path[0]).startswith("_"):
            continue
        tried += 1
        saved.file.write_text(text)
        try:
            saved.ours.from_pretrained(saved.folder)
        except InputError as error:
            told.append(str(error))
    saved.file.write_text(saved.text)
    assert len(told) > tried / 2
    for line in told:
        assert str(saved.folder) in line
        assert "\n" not in line


WRONG = [  # what was taken before there was a type for each setting
    ("DDIMScheduler", {"clip_sample": 1}, "clip_sample: expected a valid boolean, found 1"),
    ("DDIMScheduler", {"steps_offset": -5}, "steps_offset: expected greater than or equal to 0"),
    ("DDIMScheduler", {"clip_sample_range": -1.0}, "clip_sample_range: expected greater than 0"),
    ("DDPMScheduler", {"trained_betas": [0.1, 7.5]}, "trained_betas.1: expected less than or"),
    ("DDPMScheduler", {"trained_betas": [-0.1, 0.5]}, "trained_betas.0: expected greater than"),
    ("DDPMScheduler", {"beta_start": "0.1"}, "beta_start: expected a valid number"),
    ("DDPMScheduler", {"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr: expected a"),
    ("PNDMScheduler", {"set_alpha_to_one": None}, "set_alpha_to_one: expected a valid boolean"),
    ("UNet2DModel", {"sample_size": -3}, "sample_size: expected "),
    ("UNet2DModel", {"add_attention": 2}, "add_attention: expected a valid boolean"),
    ("AutoencoderKL", {"scaling_factor": True}, "scaling_factor: expected a valid number"),
    ("AutoencoderKL", {"use_quant_conv": 1}, "use_quant_conv: expected a valid boolean"),
    ("AutoencoderKL", {"latents_mean": {"a": 1}}, "latents_mean: expected a valid list"),
]


@pytest.mark.parametrize(("kind", "change", "expected"), WRONG)
def test_these_are_not_taken_any_more(kind, change, expected, tmp_path):
    ours = getattr(compat, kind)
    getattr(diffusers, kind)(**MADE_OF.get(kind, {})).save_pretrained(tmp_path)
    file = tmp_path / ours.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError) as raised:
        ours.from_pretrained(tmp_path)
    assert str(file) in str(raised.value)
    assert expected in str(raised.value)


def test_another_schedulers_settings_are_kept_whatever_they_are(tmp_path):
    diffusers.UniPCMultistepScheduler().save_pretrained(tmp_path)
    assert compat.DDPMScheduler.from_pretrained(tmp_path).config.solver_type == "bh2"
