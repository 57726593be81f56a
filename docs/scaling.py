"""What a training costs on one GPU, 8 and 64, and for a billion images: the tables of scaling.md.

    python docs/benchmarks/counts.py && python docs/scaling.py

FLOPs and bytes are those that counts.py has counted. Assumed is what stands in ASSUMED, and in the
first table of the page: change it for other hardware, and run this again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
COUNTS = Path(__file__).parent / "benchmarks" / "results" / "counts.json"
ASSUMED = {
    "rate": (400e12, "FLOP/s", "what one H100 reaches in large bfloat16 products"),
    "share": (0.45, "", "of it that a training step reaches: the goal, not measured here"),
    "nvlink": (300e9, "B/s", "of gradients that a GPU passes on within a machine"),
    "network": (
        40e9,
        "B/s",
        "the same between machines, of the 50e9 that 400 Gbit/s are",
    ),
    "disk": (5e9, "B/s", "read from the disks of a machine, or from the storage that it shares"),
    "price": (2.5, "USD", "an hour of one GPU"),
    "gpus": (8, "", "in a machine"),
    "batch": (32, "", "pictures on each GPU"),
}
TOKENS = 20  # of a caption without padding; 512 numbers each, of two bytes
LATENT = 2 * 4 * 32 * 32 * 2  # bytes: mean and deviation of 4 x 32 x 32 in float16
SIZES = {"toy set": 7_000, "a million": 10**6, "a hundred million": 10**8, "a billion": 10**9}
WORLDS = (1, 8, 64)


def value(name: str) -> float:
    """What is assumed."""
    return ASSUMED[name][0]


def table(head: list[str], rows: list[list[object]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def size(count: float) -> str:
    """A number of bytes in words."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def span(seconds: float) -> str:
    """A time in words."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.2f} s" if seconds >= 0.1 else f"{seconds * 1000:,.1f} ms"


def assumed() -> str:
    """The assumptions as a table."""
    rows = []
    for name, (number, unit, words) in ASSUMED.items():
        shown = f"{number:g}" if number < 1e9 else f"{number:.2g}"
        rows.append([name, f"{shown} {unit}".strip(), words])
    return table(["", "assumed", "what it is"], rows)


def steps(counts: dict) -> str:
    """FLOPs, bytes and the time of a step at the assumed rate."""
    rows = []
    for row in counts["steps"]:
        rows.append(
            [
                row["network"],
                row["batch"],
                f"{row['side']}x{row['side']}",
                row["tokens"],
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['flop'] / 1e9:,.1f}",
                f"{row['flop'] / row['batch'] / 1e9:,.1f}",
                size(row["bytes"]),
            ]
        )
    head = ["network", "batch", "latents", "tokens", "weights", "GFLOP a step", "a picture"]
    return table([*head, "tensors at once"], rows)


def of_network(counts: dict, name: str) -> dict:
    """The counts of a published network at 32x32 latents and 77 tokens, a picture a step."""
    wanted = {"network": name, "batch": 1, "side": 32, "tokens": 77}
    return next(row for row in counts["steps"] if wanted.items() <= row.items())


def exchange(weights: int, world: int) -> tuple[float, float]:
    """Bytes that each of `world` GPUs passes on in a step, and the seconds that this takes.

    A ring sends 2 (n - 1) / n of the gradients, which are float32. Between machines the slowest
    link counts.
    """
    sent = 2 * (world - 1) / world * 4 * weights
    link = value("nvlink") if world <= value("gpus") else value("network")
    return sent, sent / link


def worlds(counts: dict) -> str:
    """A step of the published networks on 1, 8 and 64 GPUs."""
    rows = []
    for name in ("base", "large"):
        row = of_network(counts, name)
        compute = row["flop"] * value("batch") / (value("rate") * value("share"))
        for world in WORLDS:
            sent, taken = exchange(row["parameters"], world)
            hidden = max(compute, taken)
            pictures = world * value("batch") / hidden
            read = pictures / world * min(world, value("gpus")) * (LATENT + TOKENS * 1024)
            least = value("rate") * value("share") * taken / row["flop"]
            rows.append(
                [
                    name,
                    world,
                    span(compute),
                    size(sent) if world > 1 else "",
                    span(taken) if world > 1 else "",
                    f"{least:.1f}" if world > 1 else "",
                    f"{pictures:,.0f}",
                    f"{size(read)}/s",
                ]
            )
    head = ["network", "GPUs", "compute of a step", "gradients sent", "time of that"]
    head += ["least pictures a GPU", "pictures/s", "read by a machine"]
    return table(head, rows)


def loops(counts: dict) -> str:
    """FLOPs of training on a picture, with the frozen models in the loop and without."""
    frozen, rows = counts["frozen"], []
    encoding = frozen["vae encoder"] + frozen["text encoder"]
    for name in ("base", "large"):
        step = of_network(counts, name)["flop"]
        cells = [f"{count / 1e9:,.0f}" for count in (encoding, encoding + step, step)]
        rows.append([name, *cells, f"{(encoding + step) / step:.2f}"])
    head = ["network", "GFLOP of encoding", "of the usual loop", "of ours", "times fewer"]
    return table(head, rows)


def data(counts: dict) -> str:
    """What sets of images take: cache, lists in memory, encoding, an epoch."""
    frozen = counts["frozen"]
    encoding = frozen["vae encoder"] + frozen["text encoder"]
    epoch = of_network(counts, "base")["flop"]
    rate = value("rate") * value("share")
    rows = []
    for name, images in SIZES.items():
        cache = images * (LATENT + TOKENS * 1024)
        lists = images * counts["bytes of an example"]
        order = images * 8
        rows.append(
            [
                name,
                size(cache),
                size(lists),
                size(order),
                span(images * encoding / rate / 8),
                span(images * encoding / rate / 64),
                span(images * epoch / rate / 8),
                span(images * epoch / rate / 64),
                f"{images * (encoding + epoch) / rate / 3600 * value('price'):,.2f} USD",
            ]
        )
    head = ["images", "cache", "list of examples", "order of an epoch", "encoding on 8", "on 64"]
    return table([*head, "an epoch on 8", "on 64", "encoding and one epoch"], rows)


def main() -> None:
    counts = json.loads(COUNTS.read_text())
    text = PAGE.read_text(encoding="utf-8")
    tables = {
        "assumed": assumed(),
        "counted": steps(counts),
        "worlds": worlds(counts),
        "loops": loops(counts),
        "data": data(counts),
    }
    for name, content in tables.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        _, after = rest.split(f"<!-- end of {name} -->")
        text = f"{before}<!-- {name} -->\n{content}<!-- end of {name} -->{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
