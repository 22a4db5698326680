"""Seconds from a folder of 25 images in 5 classes to a saved model, without imports and from a cold process.

The run adapted from has been trained for a few steps: how well it does is not what is measured here.
"""

import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from PIL import Image

from benchmarks.digits import configuration
from benchmarks.rounds import arguments, finish, in_turn, run, spread, table
from metanas.assembly import make_pool
from metanas.commands.model import adapt
from metanas.commands.training import train
from metanas.run import RunFolder

SHOTS = 5
SEARCH = {"population": 4, "offspring": 4, "proposals": 6, "episodes": 2, "finalists": 2, "final_episodes": 2}
BUDGET = {"warmup_steps": 4, "widening_steps": 2, "generation_steps": [2, 2]}


def make_run(out: Path) -> RunFolder:
    """A run in this process, of seconds."""
    config = configuration(shots=SHOTS, queries=5, search=SEARCH, budget=BUDGET, workers=0)
    return train(config, out)


def make_line(run: RunFolder, folder: Path) -> None:
    """The five digits that the run has not seen, as an engineer's folder."""
    pool = make_pool(run.config, None)
    for task in pool.validation:
        for label, name in enumerate(task.classes):
            (folder / name).mkdir(parents=True)
            for number, image in enumerate(task.read(task.by_class[label][:SHOTS])):
                Image.fromarray(image[0]).save(folder / name / f"{number}.png")


def main() -> None:
    """Prints both times."""
    asked = arguments(__doc__.splitlines()[0], rounds=5)
    with tempfile.TemporaryDirectory() as name:
        base, number = Path(name), count()
        run = make_run(base / "run")
        lines = [base / f"line {i}" for i in range(2 * (asked.rounds + 1))]  # read once each: what is read is cached
        for line in lines:
            make_line(run, line)
        unread = iter(lines)

        def imported() -> None:
            adapt(run, next(unread), base / f"model {next(number)}")

        def process() -> None:
            command = [
                str(Path(sys.executable).with_name("metanas")),
                "adapt",
                str(run.path),
                str(next(unread)),
                "--out",
            ]
            subprocess.run([*command, str(base / f"model {next(number)}")], check=True, capture_output=True)

        seconds = in_turn({"without imports": imported, "cold process": process}, asked.rounds)
    here, cold = spread(seconds["without imports"]), spread(seconds["cold process"])
    table(("5-way 5-shot", "seconds (range)"), [("without imports", str(here)), ("cold process", str(cold))])
    finish(asked, adapt_seconds=here, cold_seconds=cold)


if __name__ == "__main__":
    run(main)
