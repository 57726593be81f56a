"""The network against diffusers' UNet2DConditionModel with the same weights, in turns.

    python docs/benchmarks/network.py [--quick] [--widths base large] [--compile] [--profile]

Forward, and forward and backward, 32x32 latents and 77 tokens; time, and the most memory that
tensors take at once. Both sides are first shown to compute the same, and to need as many FLOPs.
--profile says which kernels the time is spent in on either side.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace

import diffusers
import torch
from rounds import arguments, flops, in_turns, keep, machine, peak_bytes, table

from tinyldm import Condition, UNet, UNetConfig
from tinyldm.compat.native import from_native
from tinyldm.device import pick_device
from tinyldm.training.presets import PRESETS

TOKENS, TOKEN_DIM = 77, 512
KINDS = ("products", "norms", "other kernels", "around them")  # where the time of a profile goes
HEAVY = ("conv", "mm", "attention", "linear")  # in the names of kernels that multiply
QUICK = UNetConfig(channels=(32, 64), attention=("cross", "none"), blocks=1, heads=2)


class Pair:
    """The two networks, with the same weights, and something to show them.

    bfloat16: whether both run under autocast
    """

    def __init__(self, config, batch, size, bfloat16):
        torch.manual_seed(0)
        self.device = pick_device()
        self.bfloat16 = bfloat16
        config = replace(config, in_channels=4, out_channels=4, token_dim=TOKEN_DIM)
        ours = UNet(config)
        with torch.no_grad():
            for p in ours.parameters():  # some start at zero
                size_of = p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
                p.copy_(torch.randn_like(p) * size_of)
        settings = dict(from_native(config, sample_size=size).config)
        theirs = diffusers.UNet2DConditionModel.from_config(settings)
        theirs.load_state_dict(ours.state_dict())
        self.networks = {"ours": ours.to(self.device), "diffusers": theirs.to(self.device)}
        self.x = torch.randn(batch, 4, size, size, device=self.device)
        self.t = torch.randint(1000, (batch,), device=self.device).float()
        self.tokens = torch.randn(batch, TOKENS, TOKEN_DIM, device=self.device)

    def call(self, side):
        """The prediction of a side."""
        network = self.networks[side]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            if side == "ours":
                return network(self.x, self.t, Condition(tokens=self.tokens))
            return network(self.x, self.t, encoder_hidden_states=self.tokens).sample

    def forward(self, side):
        """A call without a gradient."""
        with torch.no_grad():
            return self.call(side)

    def backward(self, side):
        """A call and the gradients of all weights."""
        self.networks[side].zero_grad(set_to_none=True)
        self.call(side).float().square().mean().backward()

    def difference(self):
        """How far the two predictions are apart, in units of their deviation."""
        ours, theirs = (self.forward(side).float() for side in self.networks)
        return ((ours - theirs).abs().max() / ours.std()).item()

    def compile(self):
        """Compile both for this shape."""
        for side in self.networks:
            self.networks[side] = torch.compile(self.networks[side], dynamic=False)


def measure(pair, rounds, compiled):
    """Time, and in eager mode memory and FLOPs, of forward and of forward and backward."""
    rows = []
    for job in (pair.forward, pair.backward):
        sides = {side: lambda side=side, job=job: job(side) for side in pair.networks}
        row = {"job": job.__name__, "compiled": compiled}
        if not compiled:
            row["peak bytes"] = {side: peak_bytes(call) for side, call in sides.items()}
            row["flop"] = {side: flops(call) for side, call in sides.items()}
        rows.append(row | in_turns(sides, rounds))
    return rows


def profile(pair):
    """The share of the processor's time in kernels that multiply, in norms, and in all else."""
    shares = {}
    for side in pair.networks:
        pair.backward(side)
        with torch.profiler.profile() as seen:
            pair.backward(side)
        spent = defaultdict(float)
        for event in seen.key_averages():
            name = event.key.lower()
            kind = "other kernels"
            if "norm" in name:
                kind = "norms"
            elif any(word in name for word in HEAVY):
                kind = "products"
            if event.key.startswith(("aten::", "mkldnn::")):
                spent[kind] += event.self_device_time_total or event.self_cpu_time_total
            else:
                spent["around them"] += event.self_cpu_time_total
        total = sum(spent.values())
        shares[side] = {kind: time / total for kind, time in spent.items()}
    return shares


def write(result):
    """The rows as a table, and under it what the profile says."""
    lines = []
    for row in result["rows"]:
        memory = row.get("peak bytes")
        lines.append(
            [
                row["width"],
                row["precision"],
                row["job"],
                "compiled" if row["compiled"] else "eager",
                f"{row['seconds']['ours']:.3f}",
                f"{row['ratio']['diffusers']:.2f}",
                f"{row['cpu ratio']['diffusers']:.2f}",
                f"{memory['ours'] / memory['diffusers']:.2f}" if memory else "",
                f"{row['flop']['ours'] / 1e9:.0f}" if memory else "",
            ]
        )
    head = ["widths", "precision", "job", "mode", "seconds", "of diffusers' time"]
    head += ["of its processor time", "of its memory", "GFLOP"]
    return table(head, lines) + shares(result["profile"])


def shares(profiles):
    """The profiles as a table, or nothing where there are none."""
    lines = []
    for name, sides in profiles.items():
        for side, spent in sides.items():
            lines.append([name, side, *(f"{spent.get(kind, 0):.1%}" for kind in KINDS)])
    return "\n" + table(["forward and backward", "side", *KINDS], lines) if lines else ""


def main(argv=None):
    parser = arguments(__doc__)
    parser.add_argument("--widths", nargs="+", choices=["base", "large"], default=["base", "large"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="measure compiled networks too")
    parser.add_argument("--profile", action="store_true", help="say which kernels take the time")
    given = parser.parse_args(argv)
    configs = {name: PRESETS[name] for name in given.widths}
    if given.quick:
        configs, given.rounds, given.batch = {"quick": QUICK}, 1, 1
    result = {"machine": machine(), "rows": [], "batch": given.batch, "profile": {}}
    for name, config in configs.items():
        for precision in given.precisions:
            pair = Pair(config, given.batch, 8 if given.quick else 32, precision == "bfloat16")
            facts = {"width": name, "precision": precision, "difference": pair.difference()}
            if given.profile:
                result["profile"][f"{name}, {precision}"] = profile(pair)
            rows = measure(pair, given.rounds, False)
            if given.compile:
                pair.compile()
                rows += measure(pair, given.rounds, True)
            result["rows"] += [facts | row for row in rows]
            keep("network", result, given, write(result))


if __name__ == "__main__":
    sys.exit(main())
