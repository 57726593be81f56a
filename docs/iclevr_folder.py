"""Write i-CLEVR as a captioned image folder: python docs/iclevr_folder.py ICLEVR OUT

ICLEVR holds train.json, test.json and images/ (those that are there are taken); OUT gets the images, metadata.jsonl with
captions such as "a cyan cube and a red sphere", and prompts.txt with the captions of test.json.
"""

import json
import shutil
import sys
from pathlib import Path


def caption(labels: list[str]) -> str:
    """["cyan cube", "red sphere", "gray cylinder"] -> "a cyan cube, a red sphere and a gray cylinder"."""
    things = [f"a {label}" for label in labels]
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


def main(source: Path, out: Path):
    out.mkdir(parents=True)
    labels = json.loads((source / "train.json").read_text())
    with open(out / "metadata.jsonl", "w") as stream:
        for name, objects in labels.items():
            if (source / "images" / name).is_file():
                shutil.copy(source / "images" / name, out / name)
                stream.write(json.dumps({"file_name": name, "text": caption(objects)}) + "\n")
    tests = json.loads((source / "test.json").read_text())
    (out / "prompts.txt").write_text("\n".join(map(caption, tests)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
