"""A run's own prompts name files of its data: they are found where the data lies now."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import without_seal

import sample as sample_script
import train as train_script
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNetConfig
from tinyldm.sampling import previews
from tinyldm.sampling.settings import SampleOptions
from tinyldm.toy.landscapes import write_landscapes
from tinyldm.training.checkpoint import find_checkpoint
from tinyldm.training.presets import PRESETS

TINY = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4, token_dim=6
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run in runs/land, and in kept/land the landscapes that it was trained on.

    They were in data/land then.
    """
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TINYLDM_CACHE", str(place / "cache"))
        patch.setitem(PRESETS, "tiny-test", TINY)
        Path("data").mkdir()
        write_landscapes(Path("data/land"), train=4, test=3, size=(32, 32))
        train_script.train(
            {
                "data": "data/land",
                "out": "runs/land",
                "preset": "tiny-test",
                "batch_size": 2,
                "max_steps": 1,
                "warmup": 0,
                "device": "cpu",
                "precision": "float32",
            }
        )
        draw("before")
        Path("data").rename("kept")
    return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """An empty folder to work in, with a copy of the run in it, and no data yet."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return trained


def draw(out, **options):
    sample_script.draw(
        SampleOptions(
            run="runs/land", steps=2, precision="float32", device="cpu", out=out, **options
        )
    )
    return Path(out)


def pictures(folder):
    files = sorted(folder.glob("*.png"))
    return {file.name: np.asarray(Image.open(file), int) for file in files}


def same(one, other):
    assert len(one) == 3
    assert one.keys() == other.keys()
    assert all(abs(one[name] - other[name]).max() <= 1 for name in one)


def config_file():
    return find_checkpoint("runs/land") / "config.json"


def preview_prompts():
    return json.loads(config_file().read_text())["preview_prompts"]


def say(data=None, **changes):
    """Change what the copied checkpoint says. data: of its settings."""
    config = without_seal(config_file()) | changes
    if data is not None:
        config["settings"]["data"] = data
    config_file().write_text(json.dumps(config))


def of_an_earlier_version(prompts):
    """Let the copied checkpoint say what those did: these previews, and not where its data lay."""
    config = without_seal(config_file())
    config.pop("data_folder")
    config_file().write_text(json.dumps({**config, "preview_prompts": prompts}))


def test_a_checkpoint_names_files_by_their_place_in_the_data(place):
    for prompt in preview_prompts():
        map, reference = prompt.split(" | ")
        for file in (map, reference):
            assert not Path(file).is_absolute()
            assert (place / "kept" / "land" / file).is_file()


def test_data_at_the_same_relative_place_needs_no_option(place):
    shutil.copytree(place / "kept", "data")
    same(pictures(draw("drawn")), pictures(place / "before"))


def test_data_elsewhere_is_named_by_an_option(place):
    with pytest.raises(InputError, match="no such segmentation map") as caught:
        draw("drawn")
    assert "\n" not in str(caught.value)
    assert not Path("drawn").exists()
    shutil.copytree(place / "kept" / "land", "elsewhere")
    same(pictures(draw("drawn", data="elsewhere")), pictures(place / "before"))
    same(pictures(draw("again", data=str(Path("elsewhere").resolve()))), pictures(Path("drawn")))


def test_data_that_was_named_by_its_whole_path_may_move_as_well(place):
    say(data="/nowhere/land", data_folder="/nowhere/land")
    with pytest.raises(InputError, match="/nowhere/land/.*: no such segmentation map"):
        draw("drawn")
    same(pictures(draw("drawn", data=str(place / "kept" / "land"))), pictures(place / "before"))


def test_data_that_is_where_it_was_needs_no_option_wherever_one_works(place):
    say(data_folder=str(place / "kept" / "land"))
    same(pictures(draw("drawn")), pictures(place / "before"))


def test_whole_paths_of_earlier_versions_are_still_read(place):
    """They wrote where the files were, whatever --data was."""
    root = place / "kept" / "land"
    of_an_earlier_version(
        [" | ".join(str(root / file) for file in p.split(" | ")) for p in preview_prompts()]
    )
    before, now = pictures(place / "before"), pictures(draw("drawn"))
    same(dict(enumerate(before.values())), dict(enumerate(now.values())))


def test_paths_from_the_working_folder_of_earlier_versions_are_still_read(place):
    """Without label_to_img.json they wrote the examples, whose paths began as --data did."""
    shutil.copytree(place / "kept", "data")
    of_an_earlier_version(
        [" | ".join(f"data/land/{file}" for file in p.split(" | ")) for p in preview_prompts()]
    )
    before, now = pictures(place / "before"), pictures(draw("drawn"))
    same(dict(enumerate(before.values())), dict(enumerate(now.values())))


def test_a_preview_that_is_not_finite_is_a_line_and_the_training_goes_on(
    tmp_path, monkeypatch, capsys
):
    class Broken:
        def draw(self, condition, seeds):
            raise InputError("the pictures are not finite numbers")

    monkeypatch.setattr(previews, "replace", lambda painter, network: Broken())
    view = object.__new__(previews.Previews)
    view.painter, view.condition, view.seeds = None, None, []
    file = tmp_path / "previews" / "step-0000001.png"
    view.draw(None, file)
    assert capsys.readouterr().err == f"{file}: not drawn: the pictures are not finite numbers\n"
    assert not file.exists()
