"""grids.json of a checkpoint: time grids fitted to it, each for one way of drawing.

`python -m tinyldm grid` writes it; `sample.py --spacing fitted` reads it. A grid is used for the
checkpoint, the solver, the guidance and the number of steps that it was fitted for, and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tinyldm.errors import InputError, shortened
from tinyldm.files import write_text
from tinyldm.folders import owned_file
from tinyldm.installation import called
from tinyldm.sampling.folder import hash_of, solver_facts
from tinyldm.sampling.settings import FITTED, Drawing
from tinyldm.training.checkpoint import Checkpoint, find_checkpoint
from tinyldm.typed import Count, Limits, read_json

GRIDS = "grids.json"
NOT_FITTED = {"steps", "spacing", "timesteps", "precision"}  # of a Drawing: what a grid is not for
Timestep = Annotated[float, Limits(ge=0)]


@dataclass(frozen=True)
class FittedGrid:
    """One grid: what it is for, its timesteps, and its error.

    how:   the solver and the guidance, as drawing_facts() has them
    error: of the latents, which have unit variance, from those of many steps
    """

    how: dict[str, Any]
    steps: Count
    timesteps: tuple[Timestep, ...]
    error: float

    def __post_init__(self) -> None:
        if len(self.timesteps) != self.steps:
            raise ValueError(f"expected {self.steps} timesteps, found {len(self.timesteps)}")


@dataclass(frozen=True)
class FittedGrids:
    """The content of grids.json; contents: the hash of the checkpoint that they were fitted to."""

    contents: str
    grids: tuple[FittedGrid, ...] = ()


def drawing_facts(how: Drawing) -> dict[str, Any]:
    """What of a drawing a grid is fitted for, as JSON has it; a guide is known by its content."""
    facts = {name: value for name, value in asdict(how).items() if name not in NOT_FITTED}
    facts["solver"] = solver_facts(how.solver)
    if how.guide is not None:
        facts["guide"] = hash_of(find_checkpoint(how.guide))
    return json.loads(json.dumps(facts))


def read_grids(checkpoint: Checkpoint) -> FittedGrids:
    """The grids beside a checkpoint, as far as they are its own; InputError where none are."""
    file = checkpoint.path / GRIDS
    advice = f"{called('python -m tinyldm')} grid {checkpoint.path} fits some"
    if not file.exists():
        raise InputError(f"{checkpoint.path}: has no {GRIDS}; {advice}")
    found: FittedGrids = read_json(file, FittedGrids)
    for grid in found.grids:
        try:
            checkpoint.schedule.levels(grid.timesteps)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None
    if found.contents != hash_of(checkpoint.path):
        raise InputError(f"{file}: was fitted for another checkpoint; {advice}")
    return found


def with_fitted_grid(checkpoint: Checkpoint, how: Drawing) -> Drawing:
    """A drawing whose spacing is 'fitted', with the timesteps of its grid; others as they are.

    InputError: no grid beside the checkpoint is for this solver, guidance and number of steps
    """
    if how.spacing != FITTED:
        return how
    file = checkpoint.path / GRIDS
    grids = read_grids(checkpoint).grids
    asked = drawing_facts(how)
    misfits = [", ".join(differences(grid.how, asked)) for grid in grids]
    fitting = [grid for grid, misfit in zip(grids, misfits, strict=True) if not misfit]
    for grid in fitting:
        if grid.steps == how.steps:
            return replace(how, timesteps=grid.timesteps)
    command = called("python -m tinyldm")
    advice = f"{command} grid {checkpoint.path} with the same options fits one"
    if fitting:
        known = ", ".join(str(n) for n in sorted(grid.steps for grid in fitting))
        raise InputError(f"--steps {how.steps}: {file} has grids of {known} steps; {advice}")
    misfit = min(misfits, key=len, default="nothing")
    raise InputError(f"--spacing {FITTED}: {file} is for {shortened(misfit)}; {advice}")


def differences(fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """In what the facts of a grid differ from those asked for, in words."""
    for key in sorted(fitted.keys() | asked.keys()):
        a, b = fitted.get(key), asked.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):  # two solvers
            if a.get("name") == b.get("name"):
                yield from differences(a, b)
            else:
                yield f"{a.get('name')}, not {b.get('name')}"
        elif key == "guide":
            yield "another guide"
        else:
            yield f"{key} {a}, not {b}"


def add_grids(checkpoint: Checkpoint, how: Drawing, fitted: Mapping[int, FittedGrid]) -> Path:
    """Write grids to the file beside a checkpoint; those that it has for other ways stay.

    how: what they are for; fitted: by their number of steps. Grids of another checkpoint that was
    in the same place go.
    """
    file = checkpoint.path / GRIDS
    facts, contents = drawing_facts(how), hash_of(checkpoint.path)
    with owned_file(file):
        before = read_json(file, FittedGrids) if file.exists() else FittedGrids(contents)
        kept = []
        if before.contents == contents:
            kept = [grid for grid in before.grids if grid.how != facts or grid.steps not in fitted]
        content = FittedGrids(contents, (*kept, *fitted.values()))
        write_text(file, json.dumps(asdict(content), indent=1))
    return file
