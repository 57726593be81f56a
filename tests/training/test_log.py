"""What a run tells on a disk that is full, and what it keeps of the log when it is resumed."""

from pathlib import Path

import pytest

from tinyldm.files import replacing
from tinyldm.training.log import RunLog, read_log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OSError, match="No space left") as caught:
        log_a_row_to_a_full_disk(tmp_path / "run")
    assert caught.value.filename == str(tmp_path / "run/log.csv")
    with pytest.raises(OSError, match="No space left") as caught:
        replace_on_a_full_disk(tmp_path / "samples.json")
    assert caught.value.filename == str(tmp_path / "samples.json")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no temporary file is left


def log_a_row_to_a_full_disk(run):
    with RunLog(run, 0, 10) as log:
        log.stream.close()
        log.stream = open("/dev/full", "a", buffering=1)  # noqa: SIM115 (the log closes it)
        log.row(1, 0.5, 1e-3, 1.0, 4)


def replace_on_a_full_disk(file):
    with replacing(file) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("record")


def test_rows_behind_the_step_are_taken_back(tmp_path):
    for start, steps in ((0, (1, 2, 3, 4)), (2, (3,))):
        with RunLog(tmp_path, start, 10) as log:
            for step in steps:
                log.row(step, step + start, 1e-3, 1.0, 4)
    assert [row[:2] for row in read_log(tmp_path / "log.csv")] == [
        ["1", "1"],
        ["2", "2"],
        ["3", "5"],
    ]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["log.csv"]


ROWS = [f"{k},0.5,0.001,1,{k}00" for k in (1, 2, 3)]
HEADER = "step,loss,lr,grad_norm,images_per_second"


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER, *ROWS],
        ROWS,  # the header is lost
        [HEADER, ROWS[1], ROWS[0], ROWS[2]],
        [HEADER, *ROWS, *ROWS],
        [HEADER, "nonsense", *ROWS, "1.0,2,2,2,2", "2,\x00", "4,5", "-1,2,2,2,2"],
    ],
)
def test_a_damaged_log_keeps_each_whole_row_once(tmp_path, lines):
    (tmp_path / "log.csv").write_text("\n".join(lines))
    assert read_log(tmp_path / "log.csv") == [row.split(",") for row in ROWS]
    with RunLog(tmp_path, 2, 10):
        pass
    assert read_log(tmp_path / "log.csv") == [row.split(",") for row in ROWS[:2]]
