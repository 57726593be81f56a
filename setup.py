"""What setup.cfg cannot say: on a package index, the README's links need the whole address."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup


def description() -> str:
    """README.md with its links to files of this repository made absolute, at setup.cfg's url."""
    here = Path(__file__).resolve().parent
    config = ConfigParser()
    config.read(here / "setup.cfg", encoding="utf-8")
    url = config["metadata"]["url"]
    text = (here / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?![^)]*://)([^)]+\))", rf"\1{url}/raw/main/\2", text)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?![^)]*://|#)([^)]+\))", rf"\1{url}/blob/main/\2", text)


setup(long_description=description(), long_description_content_type="text/markdown")
