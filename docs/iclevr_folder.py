"""Write i-CLEVR as a captioned image folder.

    python docs/iclevr_folder.py ICLEVR OUT

ICLEVR holds train.json, test.json and images/; images that are missing are left out. OUT gets the
images, metadata.jsonl with captions such as "a cyan cube and a red sphere", and prompts.txt with
the captions of test.json.
"""

import json
import shutil
import sys
from pathlib import Path


def caption(labels: list[str]) -> str:
    """["cyan cube", "red sphere", "gray cone"] -> "a cyan cube, a red sphere and a gray cone"."""
    things = [f"a {label}" for label in labels]
    if len(things) < 2:
        return " and ".join(things)
    return f"{', '.join(things[:-1])} and {things[-1]}"


def main(source: Path, out: Path) -> None:
    """Write the folder `out` from the folder `source`."""
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
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
