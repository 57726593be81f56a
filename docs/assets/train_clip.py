"""Makes the tiny CLIP (2103.00020) that ships in the package, on pictures and captions drawn here.

    python docs/assets/train_clip.py --out FOLDER

is `python -m tinyldm toy clip`; both work from a clone of the repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scenes
import torch
import torch.nn.functional as F
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from tqdm import tqdm

from tinyldm.errors import InputError
from tinyldm.files import replacing_files
from tinyldm.folders import Kind, check_free, owned
from tinyldm.frozen.loading import quiet
from tinyldm.toy import monsters as toy
from tinyldm.typed import read_json

PAD, END, START = "<|pad|>", "<|endoftext|>", "<|startoftext|>"  # numbers 0, 1, 2
MAX_LENGTH = 77
MEAN, STD = (0.7, 0.7, 0.7), (0.3, 0.3, 0.3)  # of the pixels in [0, 1]


def train_tokenizer(captions, vocabulary: int = 2048):
    """A byte-level BPE tokenizer of lower-cased text.

    All 256 bytes are in it, so that no text is unknown.
    """
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=3,
        special_tokens=[PAD, END, START],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 2), (END, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        bos_token=START,
        model_max_length=MAX_LENGTH,
    )


def corpus(seed: int, monsters: list):
    """The captions that the tokenizer learns its words from."""
    r = Random(f"tokenizer {seed}")
    for k in range(30000):
        if k % 5 == 0:
            _, caption = scenes.captioned_picture(r, monsters)
            yield caption
        else:
            yield scenes.caption(r)


def new_model(vocabulary: int):
    """A transformers CLIPModel with 1.9M random weights."""
    from transformers import CLIPConfig, CLIPModel

    tower = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4)
    numbers = dict(pad_token_id=0, eos_token_id=1, bos_token_id=2)
    text = {**tower, **numbers, "vocab_size": vocabulary, "max_position_embeddings": MAX_LENGTH}
    vision = {**tower, "image_size": 64, "patch_size": 8}
    # written-out attention: on CPUs its backward pass is twice as fast as that of the fused one
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=128, attn_implementation="eager"
    )
    return CLIPModel(config)


class TokenReader(nn.Module):
    """Reads from each text state its own token and the one before it.

    Trained together with the text tower, it keeps all words apart and in place.
    """

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        width = embedding.embedding_dim
        self.embedding = embedding
        self.own = nn.Linear(width, width)
        self.before = nn.Linear(width, width)

    def forward(self, states: Tensor, ids: Tensor) -> Tensor:
        """The mean cross-entropy; states: (b, n, width), ids: (b, n)."""
        keep = ids != 0
        loss = 0
        for head, answers in ((self.own, ids), (self.before, ids.roll(1, dims=1))):
            logits = F.linear(head(states[keep]), self.embedding.weight)  # (tokens, vocabulary)
            loss = loss + F.cross_entropy(logits.float(), answers[keep])
        return loss / 2


def pixels_of(images) -> Tensor:
    """PIL images of 64x64 as the vision tower sees them, (b, 3, 64, 64)."""
    stacked = np.stack([np.asarray(image, np.float32) for image in images])  # (b, h, w, 3)
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2) / 255
    mean = torch.tensor(MEAN)[:, None, None]
    std = torch.tensor(STD)[:, None, None]
    return (pixels - mean) / std


def training_batch(step: int, seed: int, size: int, monsters: list) -> tuple[list, list[str]]:
    """The pictures of a step; and their captions, followed by size // 4 captions without pictures.

    The monsters of a step often have an attribute or the action in common, so that the others must
    tell them apart. Every eighth step the captions without pictures are four times as long.
    """
    r = Random(f"clip {seed} {step}")
    name = r.choice(("colour", "shape", "feature", "eyes", None))
    like = r.choice(monsters)
    if name is not None:
        monsters = [m for m in monsters if getattr(m, name) == getattr(like, name)]
    actions = tuple(toy.ACTIONS)
    if r.random() >= 0.6:
        actions = (r.choice(actions),)
    images, captions = [], []
    for _ in range(size):
        image, caption = scenes.captioned_picture(r, monsters, actions)
        images.append(image)
        captions.append(caption)
    parts = 4 if step % 8 == 0 else 1
    for _ in range(size // 4):
        captions.append(". ".join(scenes.caption(r) for _ in range(parts)))
    return images, captions


def contrastive_loss(text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
    """The symmetric cross-entropy of CLIP (2103.00020, figure 3).

    text, image: (b, d) of unit length
    """
    logits = scale * text @ image.T
    answers = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2


def step_loss(
    model, reader: TokenReader, tokenizer, *, images, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """The contrastive loss of the pictures and the reading loss of all captions."""
    inputs = tokenizer(
        captions, return_tensors="pt", padding=True, truncation=True, max_length=MAX_LENGTH
    )
    with torch.autocast("cpu", torch.bfloat16):
        text = model.text_model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
        image = model.vision_model(pixel_values=pixels_of(images))
        reading = reader(text.last_hidden_state, inputs.input_ids)
        texts = model.text_projection(text.pooler_output[: len(images)])
        views = model.visual_projection(image.pooler_output)
    texts, views = F.normalize(texts.float(), dim=-1), F.normalize(views.float(), dim=-1)
    return contrastive_loss(texts, views, model.logit_scale.exp().clamp(max=100)), reading


def train_clip(
    out: str | Path, steps: int, seed: int = 0, *, batch_size: int = 80, overwrite: bool = False
):
    """Train a tiny CLIP from scratch and write its folder (float16)."""
    out = Path(out)
    check_free(out, CLIP_FOLDER, overwrite)
    with owned(out, CLIP_FOLDER, "--out"):
        model, tokenizer = trained(steps, seed, batch_size)
        save_clip(model, tokenizer, out)


def trained(steps: int, seed: int, batch_size: int):
    """A tiny CLIP trained from scratch, and its tokenizer."""
    torch.manual_seed(seed)
    monsters = toy.monsters()[0]
    tokenizer = train_tokenizer(corpus(seed, monsters))
    model = new_model(len(tokenizer))
    reader = TokenReader(model.text_model.embeddings.token_embedding)
    parameters = list(dict.fromkeys([*model.parameters(), *reader.parameters()]))
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    warm = min(100, max(1, steps // 10))

    def share_of_rate(step: int) -> float:
        return min((step + 1) / warm, 0.5 + 0.5 * np.cos(np.pi * step / steps))

    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_rate)
    progress = tqdm(range(steps), desc="training the tiny CLIP", unit="step", disable=None)
    for step in progress:
        images, captions = training_batch(step, seed, batch_size, monsters)
        contrast, reading = step_loss(model, reader, tokenizer, images=images, captions=captions)
        optimizer.zero_grad()
        (contrast + 0.3 * reading).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        progress.set_postfix(contrast=f"{contrast:.3f}", reading=f"{reading:.3f}")
    return model, tokenizer


def has_clip(folder: Path) -> bool:
    """Whether a folder holds a CLIP that was trained here: its images are of 64 pixels."""
    try:
        processor = read_json(folder / "preprocessor_config.json", dict[str, Any])
    except InputError:
        return False
    crop = processor.get("crop_size")
    return processor.get("image_mean") == list(MEAN) and crop == {"height": 64, "width": 64}


CLIP_FOLDER = Kind(
    "clip",
    r"(preprocessor_config|config|tokenizer_config|tokenizer|special_tokens_map)\.json"
    r"|model\.safetensors",
    known=has_clip,
)


def save_clip(model, tokenizer, out: Path):
    """Write the folder that CLIPModel, AutoTokenizer and CLIPImageProcessor read."""
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 64},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 64, "width": 64},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_convert_rgb": True,
    }
    with replacing_files(out) as draft:
        with quiet():
            model.half().save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


@torch.no_grad()
def score_clip(folder: str | Path, rounds: int = 8, seed: int = 1) -> dict[str, float]:
    """How often a CLIP folder is right on fresh pictures that it was not trained on.

    The first score is retrieval: the caption of a picture has to be found among 64. Then, on
    drawings of held-out monsters, each attribute is told by comparing the drawing with its true
    caption in which that attribute is changed to every value.
    """
    from tinyldm.frozen.image import ClipScorer

    scorer = ClipScorer.load(folder)
    _, unknown = toy.monsters()
    r = Random(f"score {seed}")
    hits = []
    for _ in range(rounds):
        pairs = [scenes.captioned_picture(r, unknown) for _ in range(64)]
        images = scorer.images([image for image, _ in pairs])
        captions = scorer.texts([caption for _, caption in pairs])
        found = (images @ captions.T).argmax(1)
        hits.append((found == torch.arange(64)).float().mean().item())
    scores = {"retrieval of 1 in 64": sum(hits) / rounds}

    truths = [(r.choice(unknown), r.choice(list(toy.ACTIONS))) for _ in range(200)]
    views = scorer.images([toy.draw(monster, action, r) for monster, action in truths])
    for name, values in toy.ATTRIBUTES.items():
        right = 0
        for view, (monster, action) in zip(views, truths, strict=True):
            truth = {**vars(monster), "action": action}
            texts = [plain_caption({**truth, name: value}) for value in values]
            likeliest = int((scorer.texts(texts) @ view).argmax())
            right += values[likeliest] == truth[name]
        scores[name] = right / len(truths)
    return scores


def plain_caption(attributes: dict) -> str:
    """The first of the ways to describe a monster with these attributes, and its action."""
    attributes = dict(attributes)
    action = toy.ACTIONS[attributes.pop("action")]
    description = toy.describe(toy.Monster(**attributes), Random(0), toy.TEMPLATES[0])
    return f"{description} {action}".strip()


if __name__ == "__main__":
    from tinyldm.__main__ import COMMANDS
    from tinyldm.cli import dispatch
    from tinyldm.signals import leave

    leave(dispatch(COMMANDS, ["toy", "clip", *sys.argv[1:]]))
