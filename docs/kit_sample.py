"""What the grader of the assignment kit says to a student: python docs/kit_sample.py [--write]

It writes a kit, fills some blanks as students do, wrongly, and grades them. With --write, what the
grader says goes into docs/kit.md, between its two marks.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tinyldm.kit.exercises import EXERCISES
from tinyldm.kit.writing import find, write_kit

PAGE = Path(__file__).parent / "kit.md"
MARKS = ("<!-- sample: python docs/kit_sample.py --write -->\n", "<!-- end of sample -->\n")
ANSWERS = {  # what a student writes, by function; the others stay blank
    "DDIM.step": "return nxt.alpha * x0 + now.sigma * eps, ()",
    "DDPM.step": """
rho = now.correlation(nxt)
mean = nxt.alpha * (1 - rho**2) * x0 + rho * nxt.sigma / now.sigma * x
return mean + nxt.sigma**2 * (1 - rho**2) * noise, ()
""",
    "Guidance.__call__": """
def guided(x, t, condition):
    null = denoiser(x, t, self.null.expand(len(x)))
    return null + self.scale * (denoiser(x, t, condition) - null)

return guided
""",
    "DPMSolver.bend": "return torch.zeros_like(m_0)",
    "draw_noise": """
t = torch.randint(schedule.timesteps, (len(x0),), generator=generator) if t is None else t
eps = torch.randn(x0.shape, generator=generator) if eps is None else eps
level = schedule.level(t).like(x0)
return Noised(x0, eps, t, level, level.alpha * x0 + level.sigma * eps)
""",
    "prediction_error": "return ((predicted - noised.eps) ** 2).flatten(1).mean(1)",
    "_attend": "return (q @ k.transpose(-1, -2)).softmax(-1) @ v",
}
RIGHT = ("DPMSolver.step", "NoiseSchedule.betas", "NoiseSchedule.alpha_bar")


def answered(text: str, name: str, answer: str) -> str:
    """A module of the kit in which the blank function of that name has a body."""
    rows = text.splitlines()
    function = find(text, name)
    blank = function.body[-1]
    indent = " " * blank.col_offset
    body = [indent + row if row else "" for row in answer.strip().splitlines()]
    rows[blank.lineno - 1 : blank.end_lineno] = body
    return "\n".join(rows) + "\n"


def solution(module: str, name: str) -> str:
    """The library's own body of a function."""
    text = (Path(__file__).parents[1] / "tinyldm" / module).read_text(encoding="utf-8")
    function = find(text, name)
    first, last = function.body[1].lineno, function.end_lineno
    rows = text.splitlines()[first - 1 : last]
    return "\n".join(row[function.body[1].col_offset :] for row in rows)


def sample() -> str:
    """What the grader says."""
    with tempfile.TemporaryDirectory() as place:
        write_kit(Path(place), EXERCISES)
        for exercise in EXERCISES:
            for name in exercise.functions:
                answer = solution(exercise.module, name) if name in RIGHT else ANSWERS.get(name)
                if answer is not None:
                    file = Path(place) / "tinyldm" / exercise.module
                    text = file.read_text(encoding="utf-8")
                    file.write_text(answered(text, name, answer), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "grade.py"], cwd=place, capture_output=True, text=True, check=False
        )
    assert not done.stderr, done.stderr
    return f"```text\n$ python grade.py\n{done.stdout}```\n"


def main() -> None:
    told = sample()
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        PAGE.write_text(before + MARKS[0] + told + MARKS[1] + after, encoding="utf-8")
    print(told, end="")


if __name__ == "__main__":
    main()
