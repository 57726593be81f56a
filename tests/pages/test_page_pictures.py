"""Pictures to look at: labelled grids, animations, and neighbours that find a copy."""

import sys

import pytest
import torch
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.data.images import grid, save_animation
from tinyldm.pages.pictures import memorised, nearest
from tinyldm.toy import monsters as toy


def test_labelled_pictures_keep_their_places():
    images = [Image.new("RGB", (20, 10), c) for c in ("red", "lime", "blue")]
    sheet = grid(images, columns=2, gap=6, words=["a", "", "c"])
    assert sheet.size == (2 * 26 + 6, 2 * 28 + 6)
    assert [
        sheet.getpixel((6 + 26 * x + 10, 6 + 28 * y + 17))
        for x, y in [(0, 0), (1, 0), (0, 1), (1, 1)]
    ] == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    above = [sheet.crop((6 + 26 * x, 6, 26 + 26 * x, 18)).getextrema()[0] for x in (0, 1)]
    assert above[0][0] < 100  # a word
    assert above[1] == (255, 255)  # none
    with pytest.raises(ValueError, match="2 words for 3 images"):
        grid(images, words=["a", "b"])


def test_animations_rest_at_the_end(tmp_path):
    save_animation(
        [Image.new("RGB", (8, 8), c) for c in ("red", "lime", "blue")], tmp_path / "a.gif"
    )
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0
        times = []
        for k in range(3):
            film.seek(k)
            times.append(film.info["duration"])
        assert film.convert("RGB").getpixel((4, 4)) == (0, 0, 255)
    assert times == [250, 250, 2000]


def test_nearest_is_the_largest_cosine():
    b = torch.nn.functional.normalize(
        torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    a = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    cosines, places = nearest(a, 3 * b, 2, chunk=7)
    every = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
    torch.testing.assert_close(cosines, every.topk(2, 1).values)
    assert torch.equal(places, every.topk(2, 1).indices)


def test_copies_are_memorised_and_fresh_draws_are_not():
    g = torch.Generator().manual_seed(0)
    train, fresh = torch.randn(2000, 6, generator=g), torch.randn(500, 6, generator=g)
    assert memorised(fresh, train)["share"] < 0.1
    assert memorised(train[::7] * 2, train)["share"] == 1.0


def test_the_command_shows_the_copy_first(tmp_path, capsys):
    for name, monsters in {"train": toy.monsters()[0][:6], "made": toy.monsters()[1][:2]}.items():
        (tmp_path / name).mkdir()
        for k, monster in enumerate(monsters):
            toy.draw(monster, "stand").save(tmp_path / name / f"{k}.png")
    toy.draw(toy.monsters()[0][3], "stand").save(tmp_path / "made" / "copy.png")
    out = tmp_path / "n.png"
    arguments = [
        "picture",
        "neighbours",
        str(tmp_path / "made"),
        "--train",
        str(tmp_path / "train"),
        "--clip",
        "tiny",
        "--rows",
        "1",
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    assert dispatch(COMMANDS, arguments) == 0
    assert "of the samples are nearer than 95 %" in capsys.readouterr().out
    with Image.open(out) as sheet:  # the copy and beside it the original
        first, second = (sheet.crop((6 + 70 * k, 18, 70 + 70 * k, 82)) for k in (0, 1))
    assert first.tobytes() == second.tobytes() == toy.draw(toy.monsters()[0][3], "stand").tobytes()
    assert dispatch(COMMANDS, arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert dispatch(COMMANDS, [*arguments[:-1], str(tmp_path / "n.gif")]) == 2
    assert "ends in .png or .jpg" in capsys.readouterr().err
    assert dispatch(COMMANDS, [*arguments, "--overwrite", "--rows", "0"]) == 2


def test_previews_and_curve_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "previews").mkdir(parents=True)
    for command, out, said in (
        ("previews", "p.png", "no previews there"),
        ("curve", "l.svg", "no steps there"),
    ):
        assert dispatch(COMMANDS, ["picture", command, str(run), "--out", str(tmp_path / out)]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / out).exists()
    for step in range(12):
        Image.new("RGB", (20, 20), (20 * step, 0, 0)).save(
            run / "previews" / f"step-{step:07d}.png"
        )
    (run / "log.csv").write_text(
        "step,loss,lr,grad_norm,images_per_second\n1,0.5,1,1,1\n2,0.4,1,1,1\n"
    )
    for command, out in (("previews", "p.png"), ("previews", "p.gif"), ("curve", "l.svg")):
        assert dispatch(COMMANDS, ["picture", command, str(run), "--out", str(tmp_path / out)]) == 0
    with Image.open(tmp_path / "p.png") as sheet, Image.open(tmp_path / "p.gif") as film:
        assert sheet.size == (5 * 26 + 6, 2 * 38 + 6)
        assert film.n_frames == 12
    assert (tmp_path / "l.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_a_curve_without_matplotlib_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "log.csv").write_text("step,loss,lr,grad_norm,images_per_second\n1,0.5,1,1,1\n")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "l.svg"
    assert dispatch(COMMANDS, ["picture", "curve", str(tmp_path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error == "error: Curves need matplotlib: pip install 'tinyldm[plots]'\n"
    assert not out.exists()
