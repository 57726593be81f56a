"""Draw pictures from prompts with a trained run: python sample.py --steps 50

The story of a drawing: checkpoint, prompts, frozen models, conditions, pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.cli import Parser, add_options, guarded
from tinyldm.errors import say
from tinyldm.sampling.settings import SampleOptions
from tinyldm.signals import leave

if TYPE_CHECKING:
    from tinyldm.processes import Processes
    from tinyldm.tasks.base import Request, Task

DESCRIPTION = "Draw pictures from prompts with a trained run."

EXAMPLES = """examples:
  python sample.py --steps 50                              the newest run, its preview prompts
  python sample.py --prompt "a green ghost with horns" --prompt "a red ghost" --guidance 4 --seed 1
  python sample.py --run runs/monsters --prompts test.json --out submission --batch-size 64
  python sample.py --strip "a green ghost with horns"      one picture from noise to the end
  python sample.py --prompt cats --count 64                of a run that learned classes
  python sample.py --count 64                              of one that learned images alone
  torchrun --nproc-per-node 8 sample.py --prompts test.json                   on 8 GPUs
  python sample.py --init ghost.png --strength 0.6 --prompt "a red ghost"     draw on a picture
  python sample.py --prompt "a red ghost" --and "a crown" --and "horns" -1    a crown, no horns

The pictures go to samples/RUN, and a grid and the settings to about/ in it. If that folder holds
pictures made otherwise, they go to RUN-2, RUN-3, ... The same command again finishes what was
interrupted.
"""


def parser() -> Parser:
    """The command line of sample.py. Nothing heavy is imported for it: --help answers at once."""
    parser = Parser(prog="sample.py", description=DESCRIPTION)
    add_arguments(parser)
    return parser


def add_arguments(parser: Parser) -> None:
    """Add the options of a drawing to a parser."""
    parser.end_with(EXAMPLES)
    parser.keep_only_given()
    parser.add_argument_group("what to draw")  # so that its heading comes first
    add_options(parser, SampleOptions)


def main() -> None:
    draw(SampleOptions(**vars(parser().parse_args())))


def draw(options: SampleOptions) -> None:
    """Draw what the options ask for."""
    from tinyldm.device import pick_device
    from tinyldm.processes import joined

    with joined(pick_device(options.device)) as processes:
        draw_in(options, processes)


def draw_in(options: SampleOptions, processes: Processes) -> None:
    """Draw as the only process, or as one of those that torchrun has started."""
    from tinyldm.sampling import job
    from tinyldm.sampling.drawing import draw_requests
    from tinyldm.sampling.edit_options import editing_of
    from tinyldm.training.checkpoint import find_checkpoint, latest_run, read_config, task_of

    # 1. The checkpoint's own words, and how to draw with it.
    folder = find_checkpoint(latest_run() if options.run is None else options.run)
    config = read_config(folder)
    task = task_of(config)
    how = options.drawing(task, config["settings"])

    # 2. The prompts, and what else there is to begin with: a picture, a mask, a second prompt.
    editing = editing_of(options, task, config, how)
    requests = editing.requests(read_prompts(options, task, config))
    strip = None if options.strip is None else editing.composed(task.prompt(options.strip))
    job.check_requests(requests, strip, task.prompted)

    # 3. The averaged network, a weaker one to guide it if asked for, and the run's frozen models.
    model = job.LoadedRun.load(folder, how, processes.device, **options.adapting)

    # 4. The folder to draw into: a new one, or one that holds the start of this very job.
    with job.open_samples(
        model,
        requests,
        options.out,
        seed=options.seed,
        strip=strip,
        overwrite=options.overwrite,
        editing=editing,
        processes=processes,
    ) as out:
        # 5. Conditions, noise, solver steps, decoder, files: batch by batch, dealt to processes.
        painter = editing.begin(model.painter, model.models, len(requests), options.seed)
        draw_requests(
            painter,
            model.models.encoder,
            requests,
            out,
            seed=options.seed,
            batch_size=options.batch_size,
            processes=processes,
        )
        if processes.is_main:
            job.save_grid(requests, out, columns=editing.interpolate or None)
            job.save_strip(painter, model.models.encoder, strip, out, seed=options.seed)
            say(job.summary(requests, folder, out))


def read_prompts(options: SampleOptions, task: Task, config: Mapping[str, Any]) -> list[Request]:
    """The prompts of a file, or of the command line, or else those that the run was watched by."""
    from tinyldm.data.examples import Request
    from tinyldm.sampling.folder import numbered_names

    if options.prompts is not None:
        return task.requests(Path(options.prompts))
    data = Path()
    if options.prompt is not None:
        texts = options.prompt
    elif options.strip is not None and options.count is None:
        return []  # the strip alone
    else:
        texts = config["preview_prompts"]
        data = options.data_folder(config)
    if options.count is not None:
        texts = options.counted(texts, options.count)
    names = numbered_names(texts)
    return [Request(name, task.prompt(text, data)) for name, text in zip(names, texts, strict=True)]


if __name__ == "__main__":
    leave(guarded(main))
