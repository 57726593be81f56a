"""Draws docs/vae.png, pictures and what the tiny VAE keeps of them; prints the table of vae.md.

    python docs/draw_vae.py [FOLDER ...]

FOLDER: more pictures to measure it on, such as those of i-CLEVR.
"""

import sys
from pathlib import Path

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.commands.toy import script
from tinyldm.scores.reconstruction import folder_scores, picture_scores
from tinyldm.stage_one.progress import reconstructions

procedural = script("pictures")
monster_pictures = script("train_vae").monster_pictures

vae = AutoencoderKL.load("tiny").requires_grad_(False)
shown = {
    "monsters": monster_pictures(10, "page", known=False),
    "procedural": procedural.pictures(10, seed=10**7),
}
reconstructions(vae, shown).save(Path(__file__).parent / "vae.png", optimize=True)

monsters = monster_pictures(1000, "measured", known=False)
scores = {"monsters of the held-out captions": picture_scores(vae, monsters)}
for noise in (0.1, 0.3):
    scores[f"the same, latents off by {noise}"] = picture_scores(vae, monsters[:200], noise)
scores["procedural pictures"] = picture_scores(vae, procedural.pictures(192, seed=10**6))
for folder in sys.argv[1:]:
    scores[folder] = folder_scores(vae, folder, size=64)
for name, score in scores.items():
    values = f"mean {score.mean:.1f} dB, pooled {score.pooled:.1f} dB"
    print(f"{name:40} {score.images:5} pictures, {values}")
