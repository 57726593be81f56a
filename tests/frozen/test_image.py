"""How a CLIP sees pictures: as transformers and as OpenAI's own code prepare them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from tinyldm.frozen.image import ClipScorer
from tinyldm.frozen.loading import TINY

SIZES = [
    (64, 64),
    (128, 128),
    (256, 256),
    (96, 64),
    (100, 150),
    (65, 64),
    (64, 77),
    (30, 40),
    (333, 71),
]


def noise(width, height, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("size", SIZES[:5])
def test_pictures_are_prepared_as_by_transformers(size):
    """Odd margins are left out: transformers rounds them down, OpenAI's code to the nearest."""
    try:
        from transformers.models.clip.image_processing_pil_clip import (
            CLIPImageProcessorPil as Processor,
        )
    except ImportError:  # the first versions 5 have it under its older name
        from transformers.models.clip.image_processing_clip import CLIPImageProcessor as Processor

    processor = Processor.from_pretrained(TINY)
    expected = processor(images=[noise(*size)], return_tensors="pt").pixel_values[0]
    assert torch.equal(ClipScorer.load("tiny").prepare(noise(*size)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_prepared_as_by_open_clip(size):
    transform = pytest.importorskip("open_clip").transform
    scorer = ClipScorer.load("tiny")
    mean, std = (values.flatten().tolist() for values in (scorer.mean, scorer.std))
    expected = transform.image_transform(64, is_train=False, mean=mean, std=std)(noise(*size))
    assert torch.equal(scorer.prepare(noise(*size)), expected)


def renamed(open_clip_weights):
    """The weights of an open_clip CLIP under the names of transformers' CLIPModel."""
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    for kind in ("weight", "bias"):
        names |= {
            f"visual.ln_pre.{kind}": f"vision_model.pre_layrnorm.{kind}",
            f"visual.ln_post.{kind}": f"vision_model.post_layernorm.{kind}",
            f"ln_final.{kind}": f"text_model.final_layer_norm.{kind}",
        }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    out = {
        "visual_projection.weight": open_clip_weights["visual.proj"].T,
        "text_projection.weight": open_clip_weights["text_projection"].T,
    }
    for name, weight in open_clip_weights.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        _, _, rest = name.partition("resblocks.")
        if not rest:
            if name in names:
                out[names[name]] = weight
            continue
        layer, _, part = rest.partition(".")
        where = f"{tower}.encoder.layers.{layer}"
        if part.startswith("attn.in_proj_"):
            for kind, piece in zip("qkv", weight.chunk(3), strict=True):
                out[f"{where}.self_attn.{kind}_proj.{part.removeprefix('attn.in_proj_')}"] = piece
        else:
            stem, _, kind = part.rpartition(".")
            out[f"{where}.{parts[stem]}.{kind}"] = weight
    return out


def test_cosines_are_open_clips():
    """One small random ViT-B-32-quickgelu in both libraries: the same cosines."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    theirs = open_clip.model.CLIP(
        48,
        quick_gelu=True,
        vision_cfg=dict(layers=2, width=64, head_width=32, patch_size=16, image_size=64),
        text_cfg=dict(context_length=16, vocab_size=49408, width=64, heads=2, layers=2),
    ).eval()
    both = dict(
        num_hidden_layers=2,
        hidden_size=64,
        num_attention_heads=2,
        intermediate_size=256,
        hidden_act="quick_gelu",
    )
    ours = CLIPModel(
        CLIPConfig(
            projection_dim=48,
            vision_config=dict(both, patch_size=16, image_size=64),
            text_config=dict(
                both,
                vocab_size=49408,
                max_position_embeddings=16,
                eos_token_id=49407,
                bos_token_id=49406,
            ),
        )
    )
    missing, unexpected = ours.load_state_dict(renamed(theirs.state_dict()), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)

    def tokenizer(texts, **how):
        ids = open_clip.get_tokenizer("ViT-B-32-quickgelu", context_length=16)(texts)
        last = ids.argmax(-1, keepdim=True)
        return {"input_ids": ids, "attention_mask": (torch.arange(16) <= last).long()}

    scorer = ClipScorer(
        ours, tokenizer, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    transform = open_clip.transform.image_transform(64, is_train=False)
    pictures, texts = (
        [noise(256, 256, k) for k in range(3)],
        ["A monster.", "a shark and a sneaker", "long " * 40],
    )
    with torch.no_grad():
        images = theirs.encode_image(torch.stack([transform(p) for p in pictures]), normalize=True)
        words = theirs.encode_text(tokenizer(texts)["input_ids"], normalize=True)
    torch.testing.assert_close(scorer.images(pictures), images, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scorer.texts(texts), words, rtol=1e-5, atol=1e-6)
