"""Whole searches of a second: spots in two places on images of eight pixels, and cells of one node."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metanas.commands.searching import search
from metanas.config import SearchConfig
from metanas.found import SearchFolder
from metanas.parsing import parse
from tests.reference import SPOTS
from tests.runs import counted

TINY: dict[str, Any] = {
    "name": "tiny",
    "image": {"size": 8},
    "space": {
        "name": "cells",
        "options": {"nodes": 1, "width": 4, "reductions": 1, "operations": ["none", "conv_1x1", "conv_3x3"]},
    },
    "population": 3,
    "batch": 2,
    "budget": {"evaluations": 5, "steps": 10},
    "final": {"epochs": 1, "batch": 16},
}
ALONE = {"name": "alone", "proxy": {"data": 0.5}, "training": {"epochs": 2, "batch": 16}}

CASES: dict[str, dict[str, Any]] = {
    "regularized": {"strategy": {"name": "regularized"}, "evaluator": ALONE},
    "reinforce": {"strategy": {"name": "reinforce", "batch": 2}, "evaluator": {"name": "synflow"}},
    "asha": {"strategy": {"name": "asha", "rungs": [0.5, 1.0], "eta": 2}, "evaluator": ALONE},
    "one-shot": {"strategy": {"name": "random"}, "evaluator": {"name": "shared"}},
    "enas": {"strategy": {"name": "enas", "batch": 2}},
    "darts": {"strategy": {"name": "darts", "batch": 8}},
}


def write_spots(folder: Path) -> None:
    """The task's images as a file."""
    parts = (SPOTS.train, SPOTS.validation, SPOTS.test)
    images = np.concatenate([np.rint(255 * part.inputs[:, 0].numpy()).astype(np.uint8) for part in parts])
    labels = np.concatenate([part.labels.numpy() for part in parts])
    np.savez(folder / "spots.npz", images=images, labels=labels)


def tiny_search(folder: Path, **changes: Any) -> SearchConfig:
    source = {"name": "spots", "kind": "npz", "path": str(folder / "spots.npz")}
    return parse(SearchConfig, TINY | {"data": source} | changes, "tiny")


def results(folder: Path) -> dict[str, Any]:
    """All that must be the same in two searches of one configuration, byte for byte."""
    result = json.loads((folder / "result.json").read_text())
    found = SearchFolder(folder)
    with found.store() as store:
        rows = [replace(evaluation, seconds=0.0) for evaluation in store.evaluations(run=found.id)]
    weights = folder / "weights.safetensors"
    return {
        "result": {key: value for key, value in result.items() if key != "seconds"},
        "weights": weights.read_bytes() if weights.exists() else b"",
        "rows": rows,
    }


def search_and_be_killed(config: SearchConfig, at: int, out: Path) -> None:
    """Runs until the process kills itself, by the signal that nobody can catch, at a line of the log."""
    search(config, out, show=counted(lambda: os.kill(os.getpid(), signal.SIGKILL), at))


def log(folder: Path, event: str) -> list[dict[str, Any]]:
    """The lines of one kind."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


class Interruption(Exception):
    """In place of a user's Control-C."""


def interrupt() -> None:
    raise Interruption
