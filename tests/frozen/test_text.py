"""Text encoders: any that transformers loads, whole CLIP files, the tiny one; and refusals."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load, load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tinyldm.errors import InputError
from tinyldm.frozen.text import TextEncoder

TEXTS = [
    "a red cube",
    "",
    "a very small purple monster with three eyes. The monster is dying.",
    "红色的龙 🐉",
]


def byte_tokenizer(length=77):
    """Every byte is a token: 0 pads, 1 ends, 2 begins."""
    words = ["<pad>", "<end>", "<start>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({word: k for k, word in enumerate(words)}, []))
    backend.add_special_tokens(words[:3])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    ends = [("<start>", 2), ("<end>", 1)]
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=ends
    )
    named = dict(pad_token="<pad>", eos_token="<end>", bos_token="<start>", model_max_length=length)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def clip_model(width=32, layers=2, heads=2, vocabulary=259, seed=0, eos=1):
    torch.manual_seed(seed)
    text = dict(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        pad_token_id=0,
        eos_token_id=eos,
        bos_token_id=2,
    )
    vision = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    )


def publish(model, folder, tokenizer=None):
    """Write a folder as OpenAI's CLIP was published: both towers in one file, with position ids."""
    model.save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    weights = load((folder / "model.safetensors").read_bytes())
    for tower, n in (("text", 77), ("vision", 5)):
        weights[f"{tower}_model.embeddings.position_ids"] = torch.arange(n)[None]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return publish(clip_model(), tmp_path_factory.mktemp("clip"))


def changed(folder, tmp_path, change):
    """A copy of the folder whose weights went through change(weights)."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


def test_states_equal_those_of_the_whole_model(folder):
    encoder = TextEncoder.load(folder)
    condition = encoder.encode(TEXTS)
    whole = clip_model().eval()
    assert condition.tokens.dtype == torch.float32
    assert condition.mask.dtype == torch.bool
    assert condition.tokens.shape == (4, condition.mask.sum(1).max(), encoder.width)
    for k, text in enumerate(TEXTS):
        ids = torch.tensor([[2, *encoder.tokenizer(text, add_special_tokens=False).input_ids, 1]])
        with torch.no_grad():
            expected = whole.text_model(input_ids=ids).last_hidden_state[0]
        assert condition.mask[k].sum() == len(expected)
        torch.testing.assert_close(
            condition.tokens[k][condition.mask[k]], expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_clip_b32_text_tower_of_full_size(tmp_path):
    tokenizer = real_tokenizer() or byte_tokenizer()
    model = clip_model(width=512, layers=12, heads=8, vocabulary=49408, eos=2)
    encoder = TextEncoder.load(publish(model, tmp_path, tokenizer))
    assert (encoder.width, encoder.max_length) == (512, 77)
    assert (
        sum(p.numel() for p in encoder.model.parameters()) == 63_165_952
    )  # of the published text tower
    condition = encoder.encode(["a photo of a cat", "word " * 200])
    inputs = tokenizer(["a photo of a cat"], return_tensors="pt")
    with torch.no_grad():
        expected = model.eval().text_model(input_ids=inputs.input_ids).last_hidden_state
    assert condition.tokens.shape == (2, 77, 512)
    torch.testing.assert_close(
        condition.tokens[:1][condition.mask[:1]], expected[0], rtol=1e-3, atol=1e-4
    )


CLIP = os.environ.get("TINYLDM_CLIP")  # a folder; see docs/text.md


def real_tokenizer():
    """CLIP's tokenizer, from the files that TINYLDM_CLIP names; None if it is not set."""
    if not CLIP:
        return None
    file = Path(CLIP, "bpe_simple_vocab_16e6.txt.gz")
    if not file.is_file():
        return transformers.CLIPTokenizer.from_pretrained(CLIP)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        merges = [tuple(line.split()) for line in lines.read().split("\n")[1 : 49152 - 256 - 2 + 1]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = [chr(b) for b in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    words = (
        signs
        + [s + "</w>" for s in signs]
        + ["".join(m) for m in merges]
        + ["<|startoftext|>", "<|endoftext|>"]
    )
    vocabulary = {word: k for k, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


@pytest.mark.skipif(not CLIP, reason="TINYLDM_CLIP is not set")
def test_real_clip_vocabulary_survives_the_folder(tmp_path):
    tokenizer, model = real_tokenizer(), clip_model(vocabulary=49408, eos=2).eval()
    # the numbers that OpenAI's tokenizer gives, as its documentation shows them
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    encoder = TextEncoder.load(publish(model, tmp_path, tokenizer))
    assert encoder.encode(["a photo of a cat", ""]).mask.sum(1).tolist() == [7, 2]
    assert_states(encoder, model, tokenizer)


@pytest.mark.skipif(
    not CLIP or not Path(CLIP, "config.json").is_file(), reason="TINYLDM_CLIP holds no model"
)
def test_published_clip_gives_the_states_that_transformers_gives():
    whole, encoder = transformers.CLIPModel.from_pretrained(CLIP).eval(), TextEncoder.load(CLIP)
    assert encoder.width == whole.config.text_config.hidden_size
    assert_states(encoder, whole, transformers.CLIPTokenizer.from_pretrained(CLIP))


@torch.no_grad()
def assert_states(encoder, whole, tokenizer):
    """Each caption's states are the whole model's for it alone, or padded to the full length."""
    texts = [*TEXTS, "word " * 200, "Photo, of  a CAT!? 3 km² naïve", "don't it's 1234567"]
    condition = encoder.encode(texts)
    for k, text in enumerate(texts):
        alone = tokenizer(text, return_tensors="pt", truncation=True, max_length=77).input_ids
        full = tokenizer(
            text, return_tensors="pt", truncation=True, max_length=77, padding="max_length"
        ).input_ids
        n = alone.shape[1]
        assert condition.mask[k].sum() == n
        assert full.shape[1] == 77
        for ids in (alone, full):
            expected = whole.text_model(input_ids=ids).last_hidden_state[0, :n]
            torch.testing.assert_close(
                condition.tokens[k][condition.mask[k]], expected, rtol=1e-4, atol=1e-4
            )


def test_text_only_folder_gives_the_same(folder, tmp_path):
    clip = clip_model()
    only = transformers.CLIPTextModel(clip.config.text_config)
    # the first versions 5 of transformers wrap the tower
    getattr(only, "text_model", only).load_state_dict(clip.text_model.state_dict())
    only.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    first, second = TextEncoder.load(folder).encode(TEXTS), TextEncoder.load(tmp_path).encode(TEXTS)
    torch.testing.assert_close(first.tokens, second.tokens)


def test_other_encoders(tmp_path):
    torch.manual_seed(0)
    t5 = transformers.T5Config(
        vocab_size=300, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3
    )
    bert = transformers.BertConfig(
        vocab_size=300,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    whole = {
        "t5": transformers.T5ForConditionalGeneration(t5),
        "bert": transformers.BertForMaskedLM(bert),
    }
    for name, model in whole.items():
        model.eval().save_pretrained(tmp_path / name)
        byte_tokenizer(512).save_pretrained(tmp_path / name)
        encoder = TextEncoder.load(tmp_path / name)
        assert encoder.width == 24
        assert encoder.max_length == {"t5": 512, "bert": 40}[name]
        part = model.encoder if name == "t5" else model.bert
        condition = encoder.encode(["a cat", "a bigger cat" * 9])
        ids = encoder.tokenizer("a cat", return_tensors="pt").input_ids
        with torch.no_grad():
            expected = part(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(
            condition.tokens[0][condition.mask[0]], expected, rtol=1e-4, atol=1e-5
        )


def test_long_captions_are_cut_and_padding_changes_nothing(folder):
    encoder = TextEncoder.load(folder)
    assert encoder.encode(["x" * 500]).tokens.shape[1] == 77
    alone, among = encoder.encode(["a cat"]), encoder.encode(["a cat", "x" * 60])
    n = alone.tokens.shape[1]
    assert alone.mask.all()
    assert among.mask[0].sum() == n
    torch.testing.assert_close(among.tokens[0, :n], alone.tokens[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["missing", "unexpected", "mismatched"])
def test_a_wrong_weight_is_named(folder, tmp_path, kind):
    name = "text_model.encoder.layers.1.mlp.fc1.weight"

    def change(weights):
        weight = weights.pop(name)
        if kind == "unexpected":
            weights[name], weights["text_model.encoder.layers.7.mlp.fc1.weight"] = (
                weight,
                weight.clone(),
            )
        if kind == "mismatched":
            weights[name] = weight[:-1].clone()

    with pytest.raises(InputError, match=f"{kind} weight .*fc1.weight") as caught:
        TextEncoder.load(changed(folder, tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_whose_download_broke_off_is_one_line(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "cut")
    file = tmp_path / "cut" / name
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"text encoder .*cut: ") as caught:
        TextEncoder.load(tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_layers_without_end_are_refused_before_they_are_built(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    file = tmp_path / "other" / "config.json"
    config = json.loads(file.read_text())
    part = config.get("text_config", config)
    part["num_hidden_layers"] = 2**31
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"other: config\.json asks for more than 1000 layers"):
        TextEncoder.load(tmp_path / "other")


@pytest.mark.parametrize("length", ["77", [], {"a": 1}, True, 0, -1])
def test_a_longest_text_that_is_no_number_is_named(folder, tmp_path, length):
    shutil.copytree(folder, tmp_path / "other")
    file = tmp_path / "other" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": length}))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: model_max_length: expected"):
        TextEncoder.load(tmp_path / "other")


@pytest.mark.parametrize("length", [None, 10**30, 1e30])
def test_a_tokenizer_without_a_longest_text_leaves_it_to_the_model(folder, tmp_path, length):
    """transformers writes 10^30 where there is no limit."""
    shutil.copytree(folder, tmp_path / "other")
    file = tmp_path / "other" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": length}))
    encoder = TextEncoder.load(tmp_path / "other")
    assert encoder.max_length == encoder.model.config.max_position_embeddings


def test_old_weight_files_are_read_but_run_no_code(folder, tmp_path):
    publish(clip_model(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert TextEncoder.load(tmp_path).fingerprint == TextEncoder.load(folder).fingerprint
    torch.save({**weights, "code": Bomb(tmp_path)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="text encoder"):
        TextEncoder.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


class Bomb:
    """Makes a file when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "exploded"),)


def test_code_that_comes_with_a_model_is_refused_without_a_question(folder, tmp_path):
    """transformers would ask on the terminal whether to run it."""
    shutil.copytree(folder, tmp_path / "custom")
    config = {"model_type": "mystery", "auto_map": {"AutoConfig": "mystery.Config"}}
    (tmp_path / "custom" / "config.json").write_text(json.dumps(config))
    exploded = tmp_path / "exploded"
    (tmp_path / "custom" / "mystery.py").write_text(f"open({str(exploded)!r}, 'w').close()")
    with pytest.raises(InputError, match=r"text encoder .*custom: ") as caught:
        TextEncoder.load(tmp_path / "custom")
    assert "\n" not in str(caught.value)
    assert not exploded.exists()


def test_no_such_encoder_says_what_to_do(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(InputError, match="--text-encoder tiny") as caught:
        TextEncoder.load("nobody/no-such-encoder")
    assert "nobody/no-such-encoder" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="text encoder") as caught:
        TextEncoder.load(tmp_path)  # an empty folder
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fingerprint_knows_the_weights(folder, tmp_path):
    first = TextEncoder.load(folder).fingerprint
    assert TextEncoder.load(folder).fingerprint == first
    other = changed(
        folder, tmp_path, lambda weights: weights["text_model.final_layer_norm.bias"].add_(1e-3)
    )
    assert TextEncoder.load(other).fingerprint != first
