"""Scores that outlive an interruption: a line of a file for every job that was done."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metanas.commands.baselines import Score
from metanas.files import write_text
from metanas.learning.executor import Executor, Job

AT_ONCE = 10
"""Jobs a worker between two writings."""


class KeptScores:
    """The scores of jobs on one executor, kept in `path` until `forget`.

    A file of the same `basis`, which names all that a score depends on beside its job, is gone on with; one of another
    basis is begun anew.
    """

    def __init__(self, path: Path, basis: str, executor: Executor) -> None:
        self._path, self._executor = path, executor
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._known = _scores(lines[1:]) if lines[:1] == [basis] else {}
        write_text(path, "".join(line + "\n" for line in [basis, *map(_line, self._known, self._known.values())]))

    def run(self, jobs: Sequence[Job[Score]], show: Callable[[dict[str, Any]], None]) -> list[Score]:
        """In the order of the jobs. Tells how many are `answered`, the share `done` of what was to do, `seconds`."""
        left, started = [job for job in jobs if repr(job) not in self._known], time.monotonic()
        for start in range(0, len(left), AT_ONCE * self._executor.workers):
            some = left[start : start + AT_ONCE * self._executor.workers]
            found = {repr(job): score for job, score in zip(some, self._executor.run(some), strict=True)}
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(_line(job, score) + "\n" for job, score in found.items())
            self._known |= found
            answered, done = start + len(some) + len(jobs) - len(left), (start + len(some)) / len(left)
            show({"answered": answered, "jobs": len(jobs), "done": done, "seconds": time.monotonic() - started})
        return [self._known[repr(job)] for job in jobs]

    def forget(self) -> None:
        """Once they are kept elsewhere."""
        self._path.unlink()


def _line(job: str, score: Score) -> str:
    return json.dumps({"job": job, **asdict(score)})


def _scores(lines: Sequence[str]) -> dict[str, Score]:
    """Up to the first line that was not written whole."""
    found = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        found[row["job"]] = Score(row["accuracy"], tuple(row["architecture"]))
    return found
