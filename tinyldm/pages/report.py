"""report.html of a run: what was trained, how it went, what it draws, how good that is, and how to make it again."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import fields
from html import escape
from pathlib import Path
from statistics import median

from tinyldm.errors import InputError
from tinyldm.files import replacing
from tinyldm.pages.curves import Line, chart, loss_lines, smoothed, thinned
from tinyldm.pages.html import commands, folded, page, picture, table
from tinyldm.pages.sweep import RESULT, prompts_of, summary
from tinyldm.training.checkpoint import find_checkpoint, read_config
from tinyldm.training.log import COLUMNS, read_log
from tinyldm.training.settings import TrainSettings, defaults_for

REPORT = "report.html"
SHOWN = 8  # previews beside the newest


def write_report(run: Path) -> Path:
    """Write report.html into a run folder, from what lies in it."""
    run = Path(run)
    checkpoint = find_checkpoint(run)
    config = read_config(checkpoint)
    if "preset" not in config["settings"]:
        raise InputError(f"{checkpoint}: was not trained here; there is nothing to report")
    log = [dict(zip(COLUMNS, map(float, row))) for row in read_log(run / "log.csv")]
    settings = [
        (f"--{name.replace('_', '-')}", value) for name, value in config["settings"].items()
    ]
    body = [
        *glance(run, checkpoint, config, log),
        *previews(run, config),
        *curves(log),
        *scores(run),
        *again(run, config),
        folded("All settings", table(settings)),
    ]
    title = f"{run.resolve().name}: {config['settings']['preset']} network"
    with replacing(run / REPORT) as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")
    return run / REPORT


def after_save(run: Path) -> None:
    """write_report() for a training, which must go on whatever becomes of its report."""
    try:
        write_report(run)
    except Exception as error:
        print(f"{run / REPORT}: not written ({type(error).__name__}: {error})", file=sys.stderr)


def glance(run: Path, checkpoint: Path, config: dict, log: list[dict]) -> list[str]:
    """The facts that a person asks for first."""
    s, last = config["settings"], log[-1] if log else {}
    weights = (checkpoint / "model.safetensors").stat().st_size / 4e6
    speed = median(row["images_per_second"] for row in log) if log else 0.0
    spent = (
        sum(s["batch_size"] / row["images_per_second"] for row in log if row["images_per_second"])
        / 60
    )
    loss = smoothed([(row["step"], row["loss"]) for row in log])
    how = config.get("condition", {"name": config["text_encoder"]})
    reads = " ".join(str(how[key]) for key in ("task", "name") if key in how)
    rows = [
        (
            "step",
            f"{last.get('step', config['step']):.0f} of {s['max_steps']}"
            + (", finished" if last.get("step", 0) >= s["max_steps"] else ""),
        ),
        ("checkpoint", checkpoint.name),
        ("network", f"{s['preset']}, {weights:.1f}M parameters"),
        ("data", s["data"] or "toy monsters"),
        ("images", f"{config['size'][1]}x{config['size'][0]}"),
        ("frozen models", f"VAE {config['vae']}, prompts by {reads}"),
        (
            "learns",
            f"{config['prediction']}, {s['schedule']} schedule, batches of {s['batch_size']}",
        ),
        ("loss", f"{loss[-1][1]:.4f} (smoothed)" if loss else "not yet"),
        ("speed", f"{speed:.4g} images/s, {spent:.0f} minutes of training steps"),
        ("batches left out", config.get("progress", {}).get("skipped", 0)),
        ("machine", config.get("machine", "not recorded")),
    ]
    return [table(rows)]


def previews(run: Path, config: dict) -> list[str]:
    """The newest preview, its prompts, and earlier ones spread over the training."""
    files = sorted((run / "previews").glob("step-*.png"))
    if not files:
        return []
    earlier = spread(files[:-1], SHOWN)
    prompts = "".join(f"<li>{escape(prompt)}</li>" for prompt in config["preview_prompts"])
    out = [
        "<h2>What it draws</h2>",
        f'<div class="big">{picture(files[-1], step_of(files[-1]), 1056)}</div>',
        folded("Its prompts, row by row", f"<ol>{prompts}</ol>"),
    ]
    thumbnails = "".join(picture(file, step_of(file), 320) for file in earlier)
    return out + (
        ["<h3>The same noise, earlier</h3>", f'<div class="row">{thumbnails}</div>']
        if earlier
        else []
    )


def spread(items: list, most: int) -> list:
    """At most so many of the items, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def step_of(file: Path) -> str:
    """Which step the name of a preview tells."""
    return f"step {int(file.stem.removeprefix('step-'))}"


def curves(log: list[dict]) -> list[str]:
    """Loss, learning rate, norm of the gradient and speed over the steps."""

    def points(column):
        return [(row["step"], row[column]) for row in log]

    out = ["<h2>Loss</h2>", chart(loss_lines(points("loss")), "step", "loss, smoothed", log=True)]
    more = {
        "lr": "learning rate",
        "grad_norm": "norm of the gradient",
        "images_per_second": "images/s",
    }
    for column, name in more.items():
        out.append(folded(name, chart([Line("", thinned(points(column)))], "step", name)))
    return out


def scores(run: Path) -> list[str]:
    """Every scores*.json and the sweep of the run."""
    out = []
    for file in sorted(run.glob("scores*.json")):
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            rows = [
                (
                    name,
                    "infinite" if s["value"] is None else f"{s['value']:.4f}",
                    s["n"],
                    s["extractor"],
                )
                for name, s in report["scores"].items()
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: not scores of python -m tinyldm evaluate ({error})"
            ) from None
        out += [f"<h3>{escape(file.name)}</h3>", table(rows, ("metric", "value", "n", "read by"))]
    if (run / "sweep" / RESULT).is_file():
        out += ["<h3>Sweep</h3>", *summary(run / "sweep" / RESULT)]
    return ["<h2>Scores</h2>", *out] if out else []


def again(run: Path, config: dict) -> list[str]:
    """The command lines that make this run, and what follows from it."""
    prompts = prompts_of(config["settings"])
    asked = f" --prompts {shlex.quote(str(prompts))}" if prompts else ""
    where, samples = shlex.quote(str(run)), shlex.quote(f"samples/{run.resolve().name}")
    lines = [
        train_command(config["settings"]),
        f"python sample.py --run {where}{asked} --out {samples}",
    ]
    lines += (
        [f"python -m tinyldm evaluate {samples}{asked} --out {where}/scores.json"]
        if prompts
        else []
    )
    return ["<h2>Again</h2>", commands([*lines, f"python -m tinyldm report {where}"])]


def train_command(settings: dict) -> str:
    """The command line whose settings are these: what differs from the defaults for such data, VAE and size."""
    s = TrainSettings.from_dict(settings)
    given = (
        {name: getattr(s, name) for name in ("data", "vae", "size")} if s.data is not None else {}
    )
    default, words = defaults_for(given, s.size, s.task), ["python", "train.py"]
    for name in (f.name for f in fields(s)):
        value, option = getattr(s, name), f"--{name.replace('_', '-')}"
        if name not in given and value == getattr(default, name):
            continue
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-"))
        else:
            words += [option, "x".join(map(str, value[::-1])) if name == "size" else str(value)]
    return shlex.join(words)
