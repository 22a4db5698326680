"""Whole runs of a second or two: meta-training on scikit-learn's handwritten digits with a handful of channels."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import metanas.files
import metanas.search.loop
from metanas.api import Evaluation
from metanas.commands.training import train
from metanas.config import RunConfig
from metanas.parsing import parse
from metanas.run import Recorder, RunFolder

TINY: dict[str, Any] = {
    "name": "tiny",
    "pool": {
        "name": "digits",
        "sources": [{"name": "digits", "kind": "sklearn", "set": "digits"}],
        "splits": {
            "by": "list",
            "train": {"digits": ["0", "1", "2", "3"]},
            "validation": {"digits": ["4", "5", "6"]},
            "test": {"digits": ["7", "8", "9"]},
        },
    },
    "image": {"size": 8},
    "warmup_size": 6,
    "train": {"ways": 3, "shots": 2, "queries": 3},
    "validation": {"ways": 3, "shots": 2, "queries": 5},
    "test": [{"name": "3-way 2-shot", "episodes": 4, "draw": {"ways": 3, "shots": 2, "queries": 5}}],
    "space": {"options": {"widths": [[4, 8], [4, 8]]}},
    "inner": {"steps": 1},
    "search": {"population": 4, "offspring": 4, "proposals": 6, "episodes": 3, "finalists": 2, "final_episodes": 5},
    "budget": {"warmup_steps": 6, "widening_steps": 3, "generation_steps": [3, 2, 3], "settling_steps": [2, 1]},
    "predictor": {"floor": -1.0},
    "adaptation": {"steps": 3, "candidates": 2},
    "workers": 0,
    "precision": "float32",
}

GENERATIONS = 5  # the first population, one for each of `generation_steps`, and the finalists


def tiny_config(**changes: Any) -> RunConfig:
    return parse(RunConfig, TINY | changes, "tiny")


def rows(folder: Path) -> list[Evaluation]:
    """The rows of a run's store, but for what the clock says."""
    run = RunFolder(folder)
    with run.store() as store:
        return [replace(evaluation, seconds=0.0) for evaluation in store.evaluations(run=run.id)]


def results(folder: Path) -> dict[str, Any]:
    """All that must be the same in two runs of one configuration, byte for byte."""
    steps = json.loads((folder / "steps.json").read_text())
    return {
        "weights": (folder / "weights.safetensors").read_bytes(),
        "population": (folder / "population.json").read_bytes(),
        "steps": {key: value for key, value in steps.items() if key != "seconds"},
        "rows": rows(folder),
    }


def counted(action: Callable[[], Any], at: int) -> Callable[..., None]:
    """A function that does `action` when called for the `at`-th time, counted from 1."""
    calls = 0

    def call(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            action()

    return call


def look_often() -> None:
    """A checkpoint every other step, in place of every few hundred."""
    metanas.search.loop.CHUNK, metanas.search.loop.CHECKPOINT = 1, 2


def train_and_be_killed(where: str, at: int, out: Path) -> None:
    """Runs until the process kills itself, by the signal that nobody can catch, when it is `where` the `at`-th time.

    "event": after a line of the log; "record": after rows went to the store, before the checkpoint; "file": when
    a file was written beside its place but not yet moved there.
    """
    look_often()
    die = counted(lambda: os.kill(os.getpid(), signal.SIGKILL), at)
    if where == "record":
        record = Recorder.record

        def record_and_die(self: Recorder, evaluations: Any) -> None:
            record(self, evaluations)
            die()

        Recorder.record = record_and_die  # type: ignore[method-assign]
    if where == "file":
        move = os.replace

        def die_or_move(source: Any, target: Any) -> None:
            die()
            move(source, target)

        metanas.files.os.replace = die_or_move
    train(tiny_config(), out, show=die if where == "event" else lambda event: None)
