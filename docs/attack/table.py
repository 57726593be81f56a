"""The table of the kinds of files that are damaged, with the reading of each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from kinds import (
    LIST,
    NEWEST,
    TEXT,
    Kind,
    autoencoder,
    batches,
    convert,
    draw_again,
    draw_one,
    examples_of,
    go_on_drawing,
    go_on_sweeping,
    judge,
    log_of_a_run,
    maps,
    moments,
    opened,
    pictures_of,
    report,
    requests_of,
    resume,
    score_toys,
    scorer,
    style_encoder,
    text_encoder,
)

RUN = "runs/captions"
ANYTHING = ("anything",)
# what a drawing says, which cannot know whether weights or guidance are at fault
NOT_FINITE = "the pictures are not finite"
VALUES = (*LIST, "sign", "huge")
OF_RUN: dict = {  # a run's message names the model; a note is kept of an encoder that can be loaded
    "named": ("clip", "vae"),
    "writes": ("cache/encoders",),
}


def files_in(folders: list[str], room: str) -> tuple[str, ...]:
    """The files of the cache folders of one room, as patterns."""
    return tuple(f"{folder}/*" for folder in folders if f"/{room}/" in folder)


def kinds() -> list[Kind]:
    """All kinds of files."""
    return [*of_a_run(), *of_results(), *of_models(), *of_data(), *without_checksums()]


def of_a_run() -> list[Kind]:
    """Of a checkpoint, and of the caches that a run reads."""
    cached = json.loads(Path("caches.json").read_text())
    own = next(name for name in cached["captions"] if "latents" in name)
    return [
        Kind(
            "config.json, to draw",
            (f"{NEWEST}/config.json",),
            draw_one,
            named=("config.json", "step-0000002"),
        ),
        Kind(
            "config.json, to resume",
            (f"{NEWEST}/config.json",),
            resume,
            named=("config.json", "step-0000002"),
        ),
        Kind("model.safetensors", (f"{NEWEST}/model.safetensors",), draw_one),
        Kind("latents.safetensors", (f"{NEWEST}/latents.safetensors",), draw_one),
        Kind("training.safetensors", (f"{NEWEST}/training.safetensors",), resume),
        Kind("cache header", (f"{own}/cache.json",), batches("captions"), writes=("cache",)),
        Kind("cache latents", (f"{own}/latents.f16",), batches("captions"), writes=("cache",)),
        Kind(
            "cache captions",
            files_in(cached["captions"], "captions"),
            batches("captions"),
            writes=("cache",),
        ),
        Kind("cache maps", files_in(cached["land"], "maps"), batches("land"), writes=("cache",)),
        Kind(
            "log.csv, to resume",
            (f"{RUN}/log.csv",),
            log_of_a_run,
            accepts=ANYTHING,
            writes=(f"{RUN}/log.csv", f"{RUN}/tensorboard"),
            must=True,
        ),
        Kind(
            "log.csv, to report",
            (f"{RUN}/log.csv",),
            report,
            accepts=ANYTHING,
            writes=(f"{RUN}/report.html",),
        ),
    ]


def of_results() -> list[Kind]:
    """Of what commands write for other commands to read."""
    return [
        Kind("samples.json", ("samples/about/samples.json",), go_on_drawing, named=("samples",)),
        Kind(
            "samples.json, to overwrite",
            ("samples/about/samples.json",),
            draw_again,
            writes=("samples",),
            named=("samples",),
        ),
        Kind(
            "sweep.json",
            (f"{RUN}/sweep/sweep.json",),
            go_on_sweeping,
            writes=(f"{RUN}/sweep",),
        ),
        Kind(
            "scores.json",
            (f"{RUN}/scores.json",),
            report,
            writes=(f"{RUN}/report.html",),
        ),
        Kind("attributes.json", ("toy/attributes.json",), score_toys, accepts=TEXT),
        Kind("evaluator config.json", ("evaluator/config.json",), judge),
        Kind("evaluator weights", ("evaluator/model.safetensors",), judge),
        Kind("moments", ("moments/*.npy",), moments, accepts=ANYTHING),
        Kind(
            "diffusers' configs",
            ("diffusers/*/*config.json",),
            convert,
            accepts=TEXT,
            writes=("converted",),
            named=("diffusers",),
        ),
        Kind(
            "diffusers' weights",
            ("diffusers/unet/*.safetensors",),
            convert,
            accepts=ANYTHING,
            writes=("converted",),
            named=("diffusion_pytorch_model.safetensors", "unet", NOT_FINITE),
        ),
    ]


def of_models() -> list[Kind]:
    """Of frozen models."""
    return [
        Kind("preprocessor, of a run", ("clip/preprocessor_config.json",), style_encoder, **OF_RUN),
        Kind(
            "preprocessor, to score",
            ("clip/preprocessor_config.json",),
            scorer,
            accepts=TEXT,
            **OF_RUN,
        ),
        Kind("tokenizer", ("clip/tokenizer*.json",), text_encoder, **OF_RUN),
        Kind("text encoder config", ("clip/config.json",), text_encoder, **OF_RUN),
        Kind("text encoder weights", ("clip/model.safetensors",), text_encoder, **OF_RUN),
        Kind("VAE config, of a run", ("vae/config.json",), text_encoder, **OF_RUN),
        Kind("VAE config, a new one", ("vae/config.json",), autoencoder, accepts=TEXT, **OF_RUN),
        Kind("VAE weights", ("vae/model.safetensors",), text_encoder, **OF_RUN),
    ]


def of_data() -> list[Kind]:
    """Of data sets and prompts."""
    return [
        Kind("prompts: test.json", ("toy/test.json",), requests_of("toy/test.json"), accepts=LIST),
        Kind(
            "prompts: labels",
            ("labels/test.json",),
            requests_of("labels/test.json", "labels"),
            accepts=LIST,
        ),
        Kind(
            "prompts: maps",
            ("land/label_to_img.json",),
            requests_of("land/label_to_img.json"),
            accepts=LIST,
        ),
        Kind(
            "prompts: .csv",
            ("pairs/generate.csv",),
            requests_of("pairs/generate.csv"),
            accepts=ANYTHING,
        ),
        Kind(
            "prompts: .txt",
            ("captions/prompts.txt",),
            requests_of("captions/prompts.txt"),
            accepts=ANYTHING,
        ),
        Kind(
            "data: metadata.jsonl",
            ("captions/metadata.jsonl",),
            examples_of("captions"),
            accepts=LIST,
        ),
        Kind("data: metadata.csv", ("table/metadata.csv",), examples_of("table"), accepts=ANYTHING),
        Kind("data: train.csv", ("pairs/train.csv",), examples_of("pairs"), accepts=ANYTHING),
        Kind(
            "data: train_info.json",
            ("toy/train_info.json",),
            examples_of("toy"),
            accepts=(*LIST, "kind"),
        ),
        Kind(
            "data: train.json",
            ("labels/train.json", "labels/objects.json"),
            examples_of("labels"),
            accepts=LIST,
        ),
        Kind(
            "images",
            ("captions/*.png", "captions/*.jpg", "captions/*.webp", "captions/*.bmp"),
            pictures_of("captions"),
            accepts=ANYTHING,
        ),
        Kind("maps", ("land/train_resized/labels/*.png",), maps, accepts=ANYTHING),
    ]


def without_checksums() -> list[Kind]:
    """Of files with checksums once more, as whoever can write checksums may change them too.

    They are taken out, as they are missing in files of older versions; what is left to notice is
    what makes no sense.
    """
    cached = json.loads(Path("caches.json").read_text())
    own = next(name for name in cached["captions"] if "latents" in name)
    config, header = f"{NEWEST}/config.json", f"{own}/cache.json"
    opened("captions")  # while all is whole, for whatever resumes
    whole = {kind.name: kind for kind in (*of_a_run(), *of_results())}
    found = []
    for name, seal, accepts in (
        ("config.json, to draw", config, VALUES),
        ("config.json, to resume", config, VALUES),
        ("model.safetensors", config, ANYTHING),
        ("latents.safetensors", config, ANYTHING),
        ("training.safetensors", config, ANYTHING),
        ("cache header", header, VALUES),
        ("cache latents", header, ANYTHING),
        ("samples.json", "samples/about/samples.json", VALUES),
        ("samples.json, to overwrite", "samples/about/samples.json", VALUES),
        ("sweep.json", f"{RUN}/sweep/sweep.json", VALUES),
        ("scores.json", f"{RUN}/scores.json", (*VALUES, "null")),  # null is infinite
        ("evaluator config.json", "evaluator/config.json", (*VALUES, "null")),
        ("evaluator weights", "evaluator/config.json", ANYTHING),
    ):
        another = f"{name}, no checksum"
        kind = replace(whole[name], name=another, seal=seal, accepts=accepts)
        if seal == config:
            told = ("step-0000002", NOT_FINITE, "captions: images or captions are not those")
            kind = replace(kind, named=(*kind.named, *told))
        found.append(kind)
    return found
