import math

import pytest

from tinyldm.cli import parse_size
from tinyldm.errors import InputError
from tinyldm.tasks.base import find_task
from tinyldm.training.chosen import settings_for
from tinyldm.training.options import parse_options, train_parser
from tinyldm.training.settings import TrainSettings


def defaults_for(given, native, task="text"):
    """The settings of a run on data of a task whose first image has a size (h, w)."""
    return settings_for(given, native, find_task(task))


def test_every_setting_is_an_option_and_every_option_means_something():
    options = {action.dest for action in train_parser()._actions} - {"help"}
    assert options - set(TrainSettings().to_dict()) == {
        "out",
        "resume",
        "overwrite",
        "epochs",
        "start",
    }
    assert set(TrainSettings().to_dict()) <= options


def test_fixed_option_names():
    fixed = [
        "--data",
        "--task",
        "--out",
        "--preset",
        "--size",
        "--text-encoder",
        "--vae",
        "--cfg-drop",
        "--max-steps",
        "--epochs",
        "--batch-size",
        "--accumulate",
        "--lr",
        "--warmup",
        "--ema",
        "--precision",
        "--prediction",
        "--schedule",
        "--snr-gamma",
        "--sample-every",
        "--save-every",
        "--resume",
        "--overwrite",
        "--skip-bad",
        "--seed",
        "--workers",
        "--device",
        "--compile",
    ]
    shown = train_parser().format_help()
    assert [
        name for name in fixed if f"  {name} " not in shown and f"  {name}\n" not in shown
    ] == []


def test_settings_survive_json():
    settings = TrainSettings(size=(384, 512), lr=3e-4, data="x")
    assert TrainSettings.from_dict({**settings.to_dict(), "size": [384, 512]}) == settings
    with pytest.raises(InputError, match="unknown settings: colour"):
        TrainSettings.from_dict({"colour": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cfg_drop": 1.5}, "--cfg-drop 1.5: expected a number from 0 to 1"),
        ({"max_steps": 0}, "--max-steps 0: expected a whole number from 1 to 1,000,000,000"),
        ({"lr": 0.0}, "--lr 0.0: expected a number above 0"),
        ({"ema": 1.0}, "--ema 1.0: "),
        ({"seed": -1}, "--seed -1: "),
        ({"seed": 2**64}, "--seed 18446744073709551616: expected a whole number from 0 to"),
        ({"lr": math.inf}, "--lr inf: expected a number above 0, at most 1,000"),
        ({"preview_guidance": math.nan}, "--preview-guidance nan: expected a number from 0 to"),
        ({"shift": 1e300}, "--shift 1e.300: expected a number from 0.001 to 1,000"),
        ({"prediction": "y"}, "--prediction y: expected one of eps, x0, v"),
        (
            {"zero_snr": True, "schedule": "cosine", "prediction": "eps"},
            "--zero-snr with --prediction eps",
        ),
        ({"schedule": "flow", "prediction": "eps"}, "--schedule flow with --prediction eps"),
        ({"schedule": "flow", "zero_snr": True}, "--zero-snr with --schedule flow"),
        (
            {"snr_gamma": 5.0, "loss_weights": "even"},
            "--snr-gamma 5.0: expected 0 with --loss-weights even",
        ),
        ({"t_sampling": "mode"}, "--t-sampling mode: expected one of uniform, logit-normal"),
    ],
)
def test_impossible_settings_are_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        TrainSettings(**values)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, ("flow", "flow")),
        ({"schedule": "flow"}, ("flow", "flow")),
        ({"prediction": "flow"}, ("flow", "flow")),
        ({"schedule": "flow", "prediction": "v"}, ("flow", "v")),
        ({"schedule": "linear"}, ("linear", "v")),
        ({"prediction": "eps"}, ("cosine", "eps")),
        ({"prediction": "v"}, ("cosine", "v")),
        ({"zero_snr": True}, ("cosine", "v")),
        ({"zero_snr": True, "prediction": "x0"}, ("cosine", "x0")),
        ({"data": "photos"}, ("cosine", "v")),
        ({"data": "photos", "vae": "tiny"}, ("cosine", "v")),
        ({"data": "photos", "schedule": "flow"}, ("flow", "flow")),
        ({"data": "photos", "prediction": "flow"}, ("cosine", "flow")),
    ],
)
def test_schedule_and_prediction_that_were_not_asked_for_go_together(given, path):
    settings = defaults_for(given, (64, 64))
    assert (settings.schedule, settings.prediction) == path


def test_defaults_follow_the_data():
    assert defaults_for({}, (64, 64)).vae == "tiny"
    monsters = defaults_for({"data": "hw6"}, (256, 256))
    assert (monsters.vae, monsters.text_encoder) == (
        "CompVis/stable-diffusion-v1-4",
        "openai/clip-vit-base-patch32",
    )
    assert monsters.size == (256, 256)
    assert monsters.preset == "base"
    assert defaults_for({"data": "photos"}, (480, 640)).size == (256, 256)
    small = defaults_for({"data": "iclevr", "vae": "tiny", "text_encoder": "tiny"}, (64, 64))
    assert small.size == (64, 64)
    assert small.preset == "toy"
    assert small.lr == 1e-3
    assert defaults_for({"data": "iclevr", "vae": "tiny", "lr": 5e-4}, (64, 64)).lr == 5e-4


def test_defaults_follow_the_task_and_help_tells_them():
    labels = defaults_for({"data": "iclevr"}, (240, 320), "labels")
    assert (labels.size, labels.vae, labels.flip, labels.preset, labels.max_steps) == (
        (64, 64),
        "tiny",
        False,
        "toy",
        15_600,
    )
    assert labels.centre
    assert labels.label_form == "tokens+vector"
    assert labels.lr == 1.5e-3
    assert (labels.optimizer, labels.t_sampling, labels.shift) == ("adamw", "stratified", 0.25)
    assert (labels.loss_weights, labels.lr_schedule) == ("even", "linear")
    land = defaults_for({"data": "land"}, (384, 512), "landscape")
    assert (land.size, land.image_encoder) == ((384, 512), "openai/clip-vit-base-patch32")
    small = defaults_for({"data": "land"}, (96, 128), "landscape")
    assert (small.size, small.vae, small.image_encoder, small.preset) == (
        (96, 128),
        "tiny",
        "tiny",
        "toy",
    )
    assert defaults_for({"data": "land"}, (512, 384), "landscape").size == (512, 384)
    assert defaults_for({"data": "land"}, (1200, 800), "landscape").size == (384, 512)
    told = " ".join(train_parser().format_help().split()).replace("- ", "-")
    assert (
        f"reads the style off the reference (default: tiny; with --data: {land.image_encoder})"
        in told
    )
    # no fixed default: it depends
    assert "detected from the files of --data; or outline" in told
    assert "my_module:MyTask (default" not in told


def test_min_snr_weights_take_the_place_of_even_ones():
    assert defaults_for({}, (64, 64)).loss_weights == "even"
    assert defaults_for({"snr_gamma": 5.0}, (64, 64)).loss_weights == "plain"
    assert defaults_for({"data": "x"}, (64, 64)).loss_weights == "plain"
    with pytest.raises(InputError, match=r"--snr-gamma 5.0: expected 0"):
        defaults_for({"snr_gamma": 5.0, "loss_weights": "even"}, (64, 64))


def test_options_that_would_be_ignored_are_refused():
    for given in (
        {"lr_decay": 0.5},
        {"lr_every": 10, "data": "x"},
        {"preview_guidance": 2.0, "cfg_drop": 0.0},
    ):
        with pytest.raises(
            InputError, match=r"--(lr-decay 0.5|lr-every 10|preview-guidance 2.0): "
        ):
            defaults_for(given, (64, 64))
    assert defaults_for({"lr_decay": 0.1, "lr_schedule": "step"}, (64, 64)).lr_decay == 0.1


def test_an_option_of_another_task_or_of_another_network_is_refused():
    for given, task, message in (
        (
            {"label_form": "maps"},
            "text",
            "--label-form maps: belongs to --task labels, this is text",
        ),
        ({"text_encoder": "tiny"}, "labels", "--text-encoder tiny: belongs to --task text"),
        ({"style_drop": 0.2}, "labels", "--style-drop 0.2: belongs to --task landscape"),
        ({"network": "a:b", "preset": "toy"}, "text", "--preset toy: would be ignored"),
    ):
        with pytest.raises(InputError, match=message):
            defaults_for(given, (64, 64), task)


def test_what_is_given_on_the_command_line_is_what_settings_are_made_of():
    given = parse_options(["--size", "96x64", "--no-flip", "--lr", "0.01", "--out", "x"])
    assert given == {"size": (64, 96), "flip": False, "lr": 0.01, "out": "x"}
    assert parse_options([]) == {}


def test_only_some_settings_may_change_on_resume():
    run = TrainSettings(lr=1e-3)
    assert run.resumed({"max_steps": 5000, "lr": 1e-3}).max_steps == 5000
    with pytest.raises(InputError, match=r"--lr 0.1: the run was started with 0.001"):
        run.resumed({"lr": 0.1})


def test_sizes():
    assert parse_size("64") == (64, 64)
    assert parse_size("512x384") == (384, 512)
    for text in ("big", "0", "64x0", "20000", "9" * 5000, "-8", "8x8x8"):
        with pytest.raises(InputError, match="^--size .*: expected pixels such as 64") as caught:
            parse_options(["--size", text])
        assert len(str(caught.value)) < 250
    with pytest.raises(InputError, match=r"^--size 9x7: expected a whole number from 8 to 16,384$"):
        TrainSettings(size=(7, 9))
