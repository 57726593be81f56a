"""Where the data of a command lies: in a folder that is named, or in the toy set."""

from __future__ import annotations

from pathlib import Path

from tinyldm.files import naming
from tinyldm.toy.monsters import ensure_toy

TOY_FOLDER = Path("data/toy")


def data_folder(data: str | None) -> Path:
    """The folder that --data names; None is the toy set, which is drawn if it is not there."""
    if data is not None:
        return Path(data)
    with naming(TOY_FOLDER):
        return ensure_toy(TOY_FOLDER)
