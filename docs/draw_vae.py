"""Draw docs/vae.png, pictures and what the tiny VAE keeps of them, and print docs/vae.md's table.

Run from the repository: python docs/draw_vae.py [FOLDER ...]
The folders hold further pictures to measure, such as those of i-CLEVR.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.commands.toy import script
from tinyldm.data.images import grid
from tinyldm.scores.reconstruction import folder_scores, picture_scores, reconstruct

DOCS = Path(__file__).parent
procedural = script("pictures")  # in docs/assets, as the next one
monster_pictures = script("train_vae").monster_pictures

vae = AutoencoderKL.load("tiny").requires_grad_(False)
shown = []
for pictures in (monster_pictures(10, "page", known=False), procedural.pictures(10, seed=10**7)):
    shown += [*torch.as_tensor(pictures), *reconstruct(vae, pictures)]
sheet = grid([Image.fromarray(picture.numpy()) for picture in shown], columns=10, gap=0)
sheet.save(DOCS / "vae.png", optimize=True)

monsters = monster_pictures(1000, "measured", known=False)
scores = {
    "monsters of the held-out captions": picture_scores(vae, monsters),
    "the same, latents off by 0.1": picture_scores(vae, monsters[:200], 0.1),
    "the same, latents off by 0.3": picture_scores(vae, monsters[:200], 0.3),
    "procedural pictures": picture_scores(vae, procedural.pictures(192, seed=10**6)),
}
for folder in sys.argv[1:]:
    scores[folder] = folder_scores(vae, folder, size=64)
for name, score in scores.items():
    values = f"mean {score.mean:.1f} dB, pooled {score.pooled:.1f} dB"
    print(f"{name:40} {score.images:5} pictures, {values}")
