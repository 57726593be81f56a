"""A CLIP in a folder, for tests of what is read from there."""

import json
import shutil

import pytest
from test_text import clip_model, publish


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A CLIP with a tokenizer.json."""
    folder = publish(clip_model(), tmp_path_factory.mktemp("clip"))
    statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(published, tmp_path / "copy")
