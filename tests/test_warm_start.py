"""With a warm cache a training imports transformers for its first preview, not for its start."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = """
import json, sys
import train
from tinyldm.training.trainer import Trainer

SLOW = {"transformers", "huggingface_hub", "matplotlib", "jinja2"}
loaded = []

def batch(self, position, plain=Trainer.batch):
    drawn = plain(self, position)
    loaded.append(sorted(SLOW & sys.modules.keys()))
    return drawn

Trainer.batch = batch
out = sys.argv[1]
train.train(dict(
    data="toy", vae="tiny", text_encoder="tiny", size=(32, 32), batch_size=2, max_steps=2, warmup=1,
    precision="float32", device="cpu", sample_every=1, out=out,
))
print(json.dumps(loaded))
"""


def trained(folder, out):
    """What of the slow libraries is loaded at each step of a training in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, out],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TINYLDM_CACHE": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_batch_of_a_warm_cache_needs_no_transformers(tmp_path):
    from tinyldm.toy.monsters import write_toy

    write_toy(tmp_path / "toy", train_monsters=1)
    cold, warm = trained(tmp_path, "cold"), trained(tmp_path, "warm")
    assert "transformers" in cold[0]  # it encodes the captions
    assert warm[0] == []
    assert "transformers" in warm[1]  # after the first preview

    for name in ("previews/step-0000001.png", "previews/step-0000002.png"):
        assert (tmp_path / "cold" / name).read_bytes() == (tmp_path / "warm" / name).read_bytes()
    weights = "checkpoints/step-0000002/training.safetensors"
    names = sorted(file.name for file in (tmp_path / "cold" / weights).parent.iterdir())
    assert Path(weights).name in names, names
    assert (tmp_path / "cold" / weights).read_bytes() == (tmp_path / "warm" / weights).read_bytes()
