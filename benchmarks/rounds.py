"""Contenders timed in turn, round after round, so that whatever else the machine does falls on all of them."""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from metanas.errors import MetanasError


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds: the median, the smallest and the largest."""

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


def spread(values: np.ndarray) -> Spread:
    """Of one measurement, over the rounds."""
    return Spread(float(np.median(values)), float(values.min()), float(values.max()))


def ratio(slow: np.ndarray, fast: np.ndarray) -> Spread:
    """How many times one measurement is the other, round by round."""
    return spread(slow / fast)


def peer_module(name: str) -> Any:
    """A module of learn2learn. Raises MetanasError where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return import_module(name)
        except ImportError as error:
            raise MetanasError(
                f"the peer cannot be loaded ({error}): install a C compiler, then run 'make -B setup'."
            ) from error


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark; what it lacks is one sentence and exit code 2, as on metanas's own command line."""
    try:
        main()
    except MetanasError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(2)


def parser_of(description: str, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark takes from its command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count (default {rounds})")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """The words of a benchmark that takes no more than that."""
    return parser_of(description, rounds).parse_args()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]), flush=True)


def finish(asked: argparse.Namespace, **keys: Any) -> None:
    """The JSON object, where it was asked for; a `Spread` gives its median and, under `_range`, its spread."""
    if not asked.json:
        return
    plain = {key: value.median if isinstance(value, Spread) else value for key, value in keys.items()}
    ranges = {f"{key}_range": [v.low, v.high] for key, v in keys.items() if isinstance(v, Spread)}
    print(json.dumps(plain | ranges))
