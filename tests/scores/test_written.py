"""scores.json is JSON, whatever was measured."""

import json
import math

import pytest

from tinyldm.scores.written import write_scores


def refuse(constant):
    pytest.fail(f"{constant} is no JSON")


def test_what_is_not_finite_is_null(tmp_path):
    values = {
        "n": 1,
        "value": math.inf,
        "reconstructions": {"PSNR": math.inf, "pooled": math.nan, "SSIM": 1.0},
    }
    write_scores(
        tmp_path / "a" / "scores.json", {"reconstruction": values, "é": {"value": 0.5}}, images="x"
    )
    found = json.loads((tmp_path / "a" / "scores.json").read_text("utf-8"), parse_constant=refuse)
    assert found["scores"]["reconstruction"] == {
        "n": 1,
        "value": None,
        "reconstructions": {"PSNR": None, "pooled": None, "SSIM": 1},
    }
    assert found["scores"]["é"] == {"value": 0.5}
    assert found["images"] == "x"
    assert "torch" in found["versions"]
