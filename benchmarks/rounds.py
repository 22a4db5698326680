"""Contenders timed in turn, round after round, so that whatever else the machine does falls on all of them."""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """How many times one thing is another: the median of the rounds, the smallest and the largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def in_turn(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds (rounds,) of one call of each contender, after one call that does not count."""
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(slow: np.ndarray, fast: np.ndarray) -> Ratio:
    """Of two measurements, round by round."""
    found = slow / fast
    return Ratio(float(np.median(found)), float(found.min()), float(found.max()))


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """What every benchmark takes from its command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count (default {rounds})")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]), flush=True)


def finish(asked: argparse.Namespace, **keys: Any) -> None:
    """The JSON object, where it was asked for; a `Ratio` gives its median and, under `_range`, its spread."""
    if not asked.json:
        return
    plain = {key: value.median if isinstance(value, Ratio) else value for key, value in keys.items()}
    ranges = {f"{key}_range": [v.low, v.high] for key, v in keys.items() if isinstance(v, Ratio)}
    print(json.dumps(plain | ranges))
