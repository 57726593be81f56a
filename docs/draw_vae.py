"""Draws docs/vae.png: pictures and what the tiny VAE keeps of them. Run from the repository: python docs/draw_vae.py"""

from pathlib import Path

import torch
from einops import rearrange
from PIL import Image

from tinyldm.frozen.vae import AutoencoderKL
from tinyldm.jobs.autoencoder import monster_pictures
from tinyldm.scores.reconstruction import reconstruct
from tinyldm.toy import pictures as procedural

vae = AutoencoderKL.load("tiny").requires_grad_(False)
sets = (monster_pictures(10, "page", known=False), procedural.pictures(10, seed=10**7))
rows = [row for pictures in sets for row in (torch.as_tensor(pictures), reconstruct(vae, pictures))]
page = rearrange(torch.stack(rows), "r n h w c -> (r h) (n w) c")
Image.fromarray(page.numpy()).save(Path(__file__).parent / "vae.png", optimize=True)
