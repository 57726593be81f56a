"""What needs no clock: FLOPs, weights, bytes of tensors and of caches, counted on the meta device.

    python docs/benchmarks/counts.py

Nothing is computed there, so the counts are the same on every machine, however busy it is. The
products inside of attention are counted, and its matrices are in the bytes: on the meta device they
are made, where the kernels of a processor keep them in parts. Results go to results/counts.json.
"""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
import transformers
from rounds import arguments, flops, keep, machine, peak_bytes, table

from tinyldm import Condition, UNet
from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.compat.native import from_native
from tinyldm.data.examples import Example
from tinyldm.nn.config import UNetConfig
from tinyldm.training.presets import PRESETS

META = torch.device("meta")
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 77}
EXAMPLES = 10_000


def toy(factor: float) -> UNetConfig:
    """The toy network with its widths multiplied."""
    widths = tuple(int(width * factor) for width in PRESETS["toy"].channels)
    return replace(PRESETS["toy"], channels=widths)


NETWORKS = {name: PRESETS[name] for name in ("toy", "small", "base", "large")}
NETWORKS |= {"half toy": toy(0.5), "double toy": toy(2)}
STEPS = [  # network, batch, side of the latents, tokens
    *[("toy", batch, 16, 16) for batch in (1, 8, 32)],
    *[("toy", 8, side, 16) for side in (8, 32)],
    *[("toy", 8, 16, tokens) for tokens in (1, 77, 154)],
    *[(name, 8, 16, 16) for name in ("half toy", "double toy")],
    *[(name, 1, 32, 77) for name in ("small", "base", "large")],
    *[("base", 1, side, 77) for side in (16, 64)],
    *[("large", 1, side, 77) for side in (16, 64)],
]


def built(config: UNetConfig, theirs: bool = False):
    """A network of a config on the meta device: ours, or diffusers' with the same weights."""
    config = replace(config, in_channels=4, out_channels=4, token_dim=512)
    with META:
        if theirs:
            known = dict(from_native(config).config)
            return diffusers.UNet2DConditionModel.from_config(known)
        return UNet(config)


def call(network, batch: int, side: int, tokens: int):
    """The prediction of a network for a batch."""
    x = torch.empty(batch, 4, side, side, device=META)
    t = torch.zeros(batch, device=META)
    said = torch.empty(batch, tokens, 512, device=META)
    if isinstance(network, UNet):
        return network(x, t, Condition(tokens=said))
    return network(x, t, encoder_hidden_states=said).sample


def of_step(config: UNetConfig, sizes: tuple[int, int, int], theirs: bool = False) -> dict:
    """FLOPs and bytes of a call, and of a call and the gradients of all weights."""
    network = built(config, theirs)

    def forward():
        with torch.no_grad():
            call(network, *sizes)

    def backward():
        network.zero_grad(set_to_none=True)
        call(network, *sizes).square().mean().backward()

    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "forward flop": flops(forward),
        "flop": flops(backward),
        "forward bytes": peak_bytes(forward),
        "bytes": peak_bytes(backward),
    }


def of_frozen() -> dict:
    """FLOPs of encoding an image of 256x256, and a caption of 77 tokens."""
    with META:
        vae = AutoencoderKL(AutoencoderConfig()).eval()
        clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)).eval()
        image, latents = torch.empty(1, 3, 256, 256), torch.empty(1, 4, 32, 32)
        words = torch.zeros(1, 77, dtype=torch.long)
    with torch.no_grad():
        return {
            "vae encoder": flops(lambda: vae.encoder(image)),
            "vae decoder": flops(lambda: vae.decoder(latents)),
            "text encoder": flops(lambda: clip(input_ids=words)),
        }


def bytes_of_an_example() -> float:
    """Bytes of memory of an entry in the list of examples, with a caption of its own."""
    tracemalloc.start()
    examples = []
    for k in range(EXAMPLES):
        caption = f"a small green monster with two horns, number {k}"
        examples.append(Example(Path(f"data/train/{k:09d}.png"), (caption,)))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(examples) == EXAMPLES
    return taken / EXAMPLES


def main(argv=None):
    given = arguments(__doc__).parse_args(argv)
    steps, networks = STEPS, ("base", "large")
    if given.quick:
        steps, networks = STEPS[:2], ("toy",)
    frozen = {} if given.quick else of_frozen()
    rows = []
    for name, *sizes in steps:
        rows.append({"network": name, "batch": sizes[0], "side": sizes[1], "tokens": sizes[2]})
        rows[-1] |= of_step(NETWORKS[name], tuple(sizes))
        print(rows[-1], flush=True)
    pairs = {}
    for name in networks:
        pairs[name] = {"ours": of_step(NETWORKS[name], (2, 32, 77))}
        pairs[name]["diffusers"] = of_step(NETWORKS[name], (2, 32, 77), theirs=True)
    result = {"machine": machine(), "steps": rows, "pairs": pairs}
    result["bytes of an example"] = bytes_of_an_example()
    result["frozen"] = frozen
    keep("counts", result, given, write_pairs(result))


def write_pairs(result) -> str:
    """Ours and diffusers' network: FLOPs and bytes."""
    lines = []
    for name, pair in result["pairs"].items():
        for job, kind in (("forward", "forward "), ("forward and backward", "")):
            ours, theirs = pair["ours"], pair["diffusers"]
            cells = [f"{side[f'{kind}flop'] / 1e9:,.0f}" for side in (ours, theirs)]
            cells += [f"{side[f'{kind}bytes'] / 1e6:,.0f}" for side in (ours, theirs)]
            cells.append(f"{ours[f'{kind}bytes'] / theirs[f'{kind}bytes']:.3f}")
            lines.append([name, job, *cells])
    head = ["network", "job", "our GFLOP", "diffusers'", "our MB", "diffusers'", "ratio of MB"]
    return table(head, lines)


if __name__ == "__main__":
    sys.exit(main())
