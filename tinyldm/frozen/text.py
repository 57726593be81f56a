"""Captions -> Condition, through any text encoder that transformers can load."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from tinyldm.condition import Condition
from tinyldm.frozen.loading import fingerprint, load_pretrained, load_weights

TINY = Path(__file__).parent.parent / "assets" / "clip"
NAMES = ("text encoder", "--text-encoder")
# What a file may hold besides the text encoder that is taken from it: the rest of a CLIP, of a T5, of a BERT
OTHER_PARTS = (
    "vision_model.",
    "visual_projection.",
    "text_projection.",
    "logit_scale",
    "decoder.",
    "lm_head.",
    "cls.",
)


def resolve(name: str | Path) -> str:
    """The folder or hub name that a name stands for: "tiny" is the CLIP that ships in the package."""
    return str(TINY) if str(name) == "tiny" else str(name)


class TextEncoder:
    """A frozen text encoder and its tokenizer.

    width: of its tokens; max_length: of its captions, in tokens; name: as it was asked for
    """

    def __init__(self, model, tokenizer, name: str):
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.width: int = model.config.hidden_size
        self.max_length: int = min(
            tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512)
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(cls, name: str | Path, device="cpu") -> TextEncoder:
        """A folder or hub name of any text encoder, or of a whole CLIPModel; "tiny" is the one in the package.

        Raises InputError if it can't be reached, or if any weight is missing, unexpected or of another shape.
        """
        from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer, CLIPTextModel

        source = resolve(name)
        kind = load_pretrained(AutoConfig.from_pretrained, source, *NAMES).model_type
        model_class = CLIPTextModel if kind.startswith("clip") else AutoModelForTextEncoding
        model = load_weights(model_class, source, *NAMES, OTHER_PARTS, spare=("pooler.",))
        tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, *NAMES)
        return cls(model.to(device), tokenizer, str(name))

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Condition:
        """The last hidden states: tokens (b, n, width) float32 and mask (b, n); n is the longest caption's length.

        A caption longer than max_length is cut.
        """
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=self.max_length
        )
        ids, mask = (
            inputs.input_ids.to(self.model.device),
            inputs.attention_mask.to(self.model.device),
        )
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (b, n, width)
        return Condition(tokens=states.float(), mask=mask.bool())

    @cached_property
    def fingerprint(self) -> str:
        """A hash of configuration, vocabulary and weights: equal models give equal conditions."""
        return fingerprint(self.model, sorted(self.tokenizer.get_vocab().items()), self.max_length)
