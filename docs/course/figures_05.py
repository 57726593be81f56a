"""Figures of chapter 5: where each word is looked at, and until when it counts."""

from pathlib import Path

import numpy as np
import style
import torch
from matplotlib.colors import to_rgb
from PIL import Image

import tinyldm
from tinyldm import DPMSolver, Guidance, sample
from tinyldm.methods.attention_maps import over_the_picture, record_attention

PROMPT = "A blue ghost with a golden crown and two eyes is attacking."
FIRST = "Green star-shaped monster with horns and two eyes. The monster is standing still."
THEN = "Red star-shaped monster with wings and two eyes. The monster is standing still."
STEPS = 25
HEAT = style.NOISE
NOT_SHOWN = ("a", "and", "with", "is", ".", "(end)")
NEVER = ("<|startoftext|>", "<|endoftext|>")


def spoken(token: str) -> str:
    """A token as it is read: without the mark of a space before it."""
    return {NEVER[0]: "(start)", NEVER[1]: "(end)"}.get(token, token.replace("Ġ", ""))


def over(picture: Image.Image, heat: np.ndarray) -> np.ndarray:
    """A picture, grey and pale, with heat (h, w) from 0 to 1 over it."""
    grey = 0.5 + 0.5 * (np.asarray(picture.convert("L"))[..., None] // 16) / 15
    side = picture.width // heat.shape[1]
    share = 0.9 * np.kron(heat, np.ones((side, side)))[..., None]
    return (1 - share) * grey + share * np.array(to_rgb(HEAT))


@torch.no_grad()
def draw_words(model: tinyldm.Model, out: Path) -> None:
    """Where the picture looks at each word, at a few timesteps of one drawing."""
    tokenizer = model.text_encoder.text_encoder.loaded.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(PROMPT).input_ids)
    words = [spoken(token) for token in tokens]
    condition = model.text_encoder.encode([PROMPT])
    shape = (1, *model.checkpoint.config["latent_shape"])
    grid = model.schedule.grid(STEPS)
    shown = [0, 8, 18]
    rows, names = [], []
    with record_attention(model.network) as maps:

        def look(index, x_s, x0):
            if index in shown:
                heat = over_the_picture(maps, shape[-2:])[0].numpy()  # (n, h, w): the condition's
                rows.append((model.decode(x0)[0], heat))
                names.append(f"t = {grid[index].t:.0f}")

        how = {"condition": condition, "guidance": Guidance(3.0, model.checkpoint.null)}
        how["prediction"] = model.checkpoint.prediction
        sample(
            model.network,
            shape,
            model.schedule,
            DPMSolver(),
            steps=STEPS,
            seeds=[5],
            callback=look,
            **how,
        )
    kept = [k for k, word in enumerate(words) if word not in NOT_SHOWN]
    pictures = []
    for picture, heat in rows:
        row = [picture]
        for k in kept:
            low, high = np.quantile(heat[k], (0.25, 0.99))
            row.append(over(picture, ((heat[k] - low) / (high - low + 1e-9)).clip(0, 1)))
        pictures.append(row)
    labels = ["estimate", *(words[k] for k in kept)]
    made = style.strip(pictures, labels, names, size=0.95)
    style.save(made, out, "05_words")


@torch.no_grad()
def draw_switch(model: tinyldm.Model, out: Path) -> None:
    """One noise, and a prompt that is exchanged for another at some t."""
    encoder, null = model.text_encoder, model.checkpoint.null
    first, then = encoder.encode([FIRST]), encoder.encode([THEN])
    shape = (1, *model.checkpoint.config["latent_shape"])
    times = [-1, 100, 200, 300, 400, 550, 750, 1000]
    row = []
    for t_switch in times:

        def told(x_t, t, condition, t_switch=t_switch):
            chosen = first if float(t[0]) > t_switch else then
            return Guidance(3.0, null)(model.network)(x_t, t, chosen)

        how = {"prediction": model.checkpoint.prediction, "seeds": [3]}
        x0 = sample(told, shape, model.schedule, DPMSolver(), steps=STEPS, **how)
        row.append(model.decode(x0)[0])
    labels = ["the first", *(f"t = {t}" for t in times[1:-1]), "the second"]
    style.save(style.strip([row], labels), out, "05_switch")


def main() -> None:
    options = style.options(__doc__)
    model = tinyldm.load(options.run, device="cpu")
    draw_words(model, options.out)
    draw_switch(model, options.out)


if __name__ == "__main__":
    main()
