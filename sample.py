"""Draw pictures from prompts with a trained run: python sample.py --steps 50."""

import sys

from tinyldm.cli import Parser, guarded

EXAMPLES = """examples:
  python sample.py --steps 50                              the newest run, its own preview prompts
  python sample.py --prompt "a green ghost with horns" --prompt "a red ghost" --guidance 4 --seed 1
  python sample.py --run runs/monsters --prompts test.json --out submission --batch-size 64
  python sample.py --strip "a green ghost with horns"      one picture from noise to the end

The pictures go to samples/RUN, a grid and the settings to its folder about/; or to RUN-2, RUN-3, ... if that holds
pictures made otherwise. The same command again finishes what was interrupted.
"""


def parser() -> Parser:
    from tinyldm.device import PRECISIONS
    from tinyldm.diffusion.schedule import SPACINGS
    from tinyldm.sampling.drawing import SOLVERS, Drawing

    how = Drawing()
    p = Parser(description=__doc__, epilog=EXAMPLES)
    what = p.add_argument_group("what to draw")
    what.add_argument(
        "--run", metavar="FOLDER", help="a run or a checkpoint (default: the newest run in runs/)"
    )
    prompts = what.add_mutually_exclusive_group()
    prompts.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a prompt; may be given several times"
    )
    prompts.add_argument(
        "--prompts",
        metavar="FILE",
        help="test.json, generate.csv, label_to_img.json, or .txt with a prompt a line",
    )
    what.add_argument(
        "--strip",
        metavar="TEXT",
        help="write about/strip.png and .gif: its x_t and x0, step by step",
    )
    what.add_argument(
        "--seed",
        type=int,
        default=0,
        help="picture k depends on the seed and k, not on the batch size",
    )
    out = p.add_argument_group("where to")
    out.add_argument("--out", metavar="FOLDER", help="default: samples/RUN")
    out.add_argument("--overwrite", action="store_true", help="replace the pictures that are there")
    method = p.add_argument_group("how")
    method.add_argument("--steps", type=int, default=how.steps, help="calls of the network")
    method.add_argument(
        "--solver", choices=SOLVERS, default="dpm++", help="dpm++ needs the fewest steps"
    )
    method.add_argument(
        "--order", type=int, choices=(1, 2, 3), help="of dpm++, sde-dpm++ and dpm (default: 2)"
    )
    method.add_argument(
        "--eta", type=float, help="of ddim: 0 is deterministic, 1 as noisy as ddpm (default: 0)"
    )
    method.add_argument("--spacing", choices=SPACINGS, default=how.spacing, help="of the timesteps")
    method.add_argument(
        "--guidance", type=float, help=f"1: none (default: {how.guidance:g}; 1 after --cfg-drop 0)"
    )
    method.add_argument(
        "--guidance-map",
        type=float,
        metavar="SCALE",
        help="landscapes: of the map alone (default: as --guidance)",
    )
    method.add_argument(
        "--guidance-style",
        type=float,
        metavar="SCALE",
        help="landscapes: of the style alone (the same)",
    )
    method.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LO", "HI"),
        help="guide only where sigma/alpha lies in between",
    )
    method.add_argument(
        "--guidance-rescale", type=float, default=how.rescale, help="0 to 1, against oversaturation"
    )
    machine = p.add_argument_group("machine")
    machine.add_argument("--batch-size", type=int, default=32, help="pictures at a time")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=how.precision,
        help="of the network (auto: bfloat16 where that is fast); bfloat16: of the VAE's decoder too",
    )
    return p


def main():
    from tinyldm.sampling.drawing import run

    run(parser().parse_args())


if __name__ == "__main__":
    sys.exit(guarded(main))
