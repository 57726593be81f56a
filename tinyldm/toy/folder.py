"""Where the data of a command lies: in the folder named, or in the toy set, which is drawn if need be."""

from __future__ import annotations

from pathlib import Path

from tinyldm.files import naming
from tinyldm.toy.monsters import ensure_toy

TOY_FOLDER = Path("data/toy")


def data_folder(data: str | None) -> Path:
    """The folder that --data names; None is the toy set."""
    if data is not None:
        return Path(data)
    with naming(TOY_FOLDER):
        return ensure_toy(TOY_FOLDER)
