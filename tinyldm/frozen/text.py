"""Captions -> Condition, through any text encoder that transformers can load."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import torch

from tinyldm.condition import Condition
from tinyldm.frozen.hub import Role, find_file
from tinyldm.frozen.known import PARTS, OnDemand
from tinyldm.frozen.loading import fingerprint, load_model, load_pretrained, resolve
from tinyldm.typed import Limits, as_type, read_json

ROLE = Role("text encoder", "--text-encoder")
# What a file may hold besides its text encoder: the rest of a CLIP, of a T5, of a BERT
OTHER_PARTS = (
    "vision_model.",
    "visual_projection.",
    "text_projection.",
    "logit_scale",
    "decoder.",
    "lm_head.",
    "cls.",
)
WHOLE_TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Entries of a tokenizer_config.json that change no token
TOKENIZER_NOTES = frozenset(
    {
        "_commit_hash",
        "_name_or_path",
        "chat_template",
        "clean_up_tokenization_spaces",
        "name_or_path",
        "processor_class",
        "tokenizer_file",
        "transformers_version",
    }
)


@dataclass(frozen=True)
class TokenizerConfig:
    """The type of what is read of a tokenizer_config.json: the most tokens of a text."""

    # transformers writes 10^30 where there is no limit, which pydantic 2.6 takes for no float
    model_max_length: Annotated[int, Limits(ge=2)] | Annotated[float, Limits(ge=2)] | None = None


def tokenizer_files(tokenizer: Any, source: str) -> dict[str, str]:
    """All that decides what a tokenizer does, file by file: name -> a hash of the content.

    tokenizer.json stands for all of a vocabulary, its merges, normaliser and pre-tokenizer. A
    tokenizer that does without has the files that its class names, such as vocab.json and
    merges.txt. Beside these are its settings and its special tokens.
    source: the folder or hub name that it was loaded from
    """
    names = {TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", WHOLE_TOKENIZER}
    if not tokenizer.is_fast or find_file(source, WHOLE_TOKENIZER, True) is None:
        names |= set(tokenizer.vocab_files_names.values())
    hashes = {}
    for name in sorted(names):
        file = find_file(source, name, local_files_only=True)
        if file is None:
            continue
        content = file.read_bytes()
        if name == TOKENIZER_CONFIG:
            settings = read_json(file, dict[str, Any])
            as_type(settings, str(file), TokenizerConfig, extra="ignore")  # for its check alone
            kept = {key: settings[key] for key in settings if key not in TOKENIZER_NOTES}
            content = json.dumps(kept, sort_keys=True).encode()
        hashes[name] = sha256(content).hexdigest()
    return hashes


class TextEncoder:
    """A frozen text encoder and its tokenizer.

    name:       what was asked for: "tiny", a folder or a hub name
    width:      of its tokens
    max_length: the most tokens that a caption may have; of a longer one the rest is cut off
    files:      a hash of each file of the tokenizer
    padded:     whether captions are encoded as published pipelines do it: each is padded to
                max_length, and the padding is attended to like words, for there is no mask
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, files: Mapping[str, str], padded: bool = False
    ):
        self.model = model
        self.padded = padded
        self.tokenizer = tokenizer
        self.name = name
        self.files = dict(files)
        self.width: int = model.config.hidden_size
        positions: int = model.config.to_dict().get("max_position_embeddings", 512)
        self.max_length: int = int(min(tokenizer.model_max_length, positions))
        if tokenizer.pad_token is None:
            tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})

    @classmethod
    def load(
        cls, name: str | Path, device: torch.device | str = "cpu", padded: bool = False
    ) -> TextEncoder:
        """The text encoder in a folder or under a hub name, or in a whole CLIP or T5; or "tiny".

        In the folder of a published pipeline, it lies in text_encoder/ and its tokenizer in
        tokenizer/.
        InputError: it cannot be reached, or a weight is missing, unexpected or of another shape.
        """
        from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer, CLIPTextModel

        source = of_tokenizer = resolve(name)
        parts = [Path(source, part) for part in PARTS]
        if all(part.is_dir() for part in parts):
            source, of_tokenizer = map(str, parts)
        config = load_pretrained(AutoConfig, source, ROLE)
        of_clip = config.model_type.startswith("clip")
        model_class = CLIPTextModel if of_clip else AutoModelForTextEncoding
        # The last hidden states are used, so a BERT may come without the layer that pools them.
        model = load_model(model_class, source, ROLE, OTHER_PARTS, optional=("pooler.",))
        tokenizer = load_pretrained(AutoTokenizer, of_tokenizer, ROLE)
        files = tokenizer_files(tokenizer, of_tokenizer)
        return cls(model.to(device), tokenizer, str(name), files, padded=padded)

    @torch.no_grad()
    def encode(self, texts: str | Sequence[str]) -> Condition:
        """The last hidden states: tokens (b, n, width) float32 and their mask (b, n) bool.

        A single text is a batch of one. n is the length of the longest caption, at most max_length;
        of a padded encoder it is max_length, and there is no mask.
        """
        inputs = self.tokenizer(
            [texts] if isinstance(texts, str) else list(texts),
            return_tensors="pt",
            padding="max_length" if self.padded else True,
            truncation=True,
            max_length=self.max_length,
        )
        ids = inputs.input_ids.to(self.model.device)  # (b, n)
        if self.padded:
            return Condition(tokens=self.model(input_ids=ids).last_hidden_state.float())
        mask = inputs.attention_mask.to(self.model.device)  # (b, n)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (b, n, width)
        return Condition(tokens=states.float(), mask=mask.bool())

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """What spaces part in a text, each with the places of its tokens in encode().

        What is cut off is left out. Empty where a tokenizer in Python cannot say the places.
        """
        if not self.tokenizer.is_fast:
            return []
        spans = self.tokenizer(
            text, truncation=True, max_length=self.max_length, return_offsets_mapping=True
        ).offset_mapping
        found = []
        for word in re.finditer(r"\S+", text):
            own = [k for k, (_, end) in enumerate(spans) if word.start() < end <= word.end()]
            if own:
                found.append((word[0], own))
        return found

    @cached_property
    def fingerprint(self) -> str:
        """A hash of configuration, weights and tokenizer: equal models give equal conditions."""
        kind = type(self.tokenizer).__name__.removesuffix("Fast")
        about: list[object] = [kind, self.files, self.max_length]
        if self.padded:
            about.append("padded")
        return fingerprint(self.model, *about)

    @cached_property
    def former_fingerprint(self) -> str:
        """What the first versions recorded: of the tokenizer, its vocabulary alone."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        return fingerprint(self.model, vocabulary, self.max_length)


class TextEncoderOnDemand(OnDemand[TextEncoder]):
    """A TextEncoder that is loaded when it first encodes."""

    def __init__(self, name: str, device: torch.device | str = "cpu", padded: bool = False):
        def load() -> TextEncoder:
            return TextEncoder.load(name, device, padded)

        super().__init__(load, resolve(name), ROLE, ("text", padded))

    def encode(self, texts: str | Sequence[str]) -> Condition:
        """TextEncoder.encode."""
        return self.loaded.encode(texts)

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """TextEncoder.words."""
        return self.loaded.words(text)
