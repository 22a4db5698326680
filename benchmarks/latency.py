"""What a latency table of blocks foretells of whole networks that it has not seen, against their measured seconds.

The table is filled from --fill uniform draws of a space, then asked about --networks others, all of whose blocks it
knows from those. "run's check" is the error that the table of a run finds for itself, in seconds of work: on random
networks whose blocks were timed in neighbours of theirs. One image, one thread.
"""

import argparse
import json
import time

import numpy as np

from benchmarks.rounds import table
from metanas.api import Architecture
from metanas.measuring.cost import cost
from metanas.measuring.latency import Foretold, LatencyTable, check, foretell
from metanas.spaces.mobile import Mobile
from predictors.ranking import kendall

SIZE = 32
SPACES = {
    "mobile, norm by sample": Mobile(channels=3, norm="sample"),
    "mobile, norm by support": Mobile(channels=3),
}


def held_out(space: Mobile, fill: int, networks: int, rng: np.random.Generator) -> tuple[int, Foretold, np.ndarray]:
    """The blocks of a table, its answers about networks it was not filled from, and their multiply-accumulates."""
    known = LatencyTable(space, SIZE)
    others: list[Architecture] = []
    drawn = {space.canonical(space.sample(rng)) for _ in range(fill)}
    for architecture in sorted(drawn):
        known(architecture)
    while len(others) < networks:
        architecture = space.canonical(space.sample(rng))
        if architecture not in drawn and known.knows(architecture):
            drawn.add(architecture)
            others.append(architecture)
    return len(known.seconds), foretell(known, others), np.array([cost(space, a, SIZE).macs for a in others])


def main() -> None:
    """Prints errors and rank correlations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fill", type=int, default=150, help="networks to fill the table from (default 150)")
    parser.add_argument("--networks", type=int, default=20, help="networks to ask about (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    rows = []
    keys: dict[str, float] = {}
    for name, space in SPACES.items():
        started = time.monotonic()
        blocks, found, macs = held_out(space, asked.fill, asked.networks, np.random.default_rng(asked.seed))
        own = check(LatencyTable(space, SIZE), np.random.default_rng(asked.seed))
        low, high = 1000 * np.quantile(found.measured, [0, 1])
        numbers = {
            "error": found.error,
            "median": found.median,
            "bias": found.bias,
            "tau": kendall(found.predicted, found.measured),
            "tau_macs": kendall(macs.astype(float), found.measured),
            "check": own.median,
        }
        keys |= {f"{key} {name}": value for key, value in numbers.items()}
        rows.append(
            (
                name,
                str(blocks),
                f"{low:.2f} to {high:.2f}",
                f"{numbers['error']:.1%}",
                f"{numbers['median']:.1%}",
                f"{numbers['bias']:+.1%}",
                f"{numbers['tau']:.2f}",
                f"{numbers['tau_macs']:.2f}",
                f"{own.median:.1%} on {len(own.measured)}",
                f"{time.monotonic() - started:.0f}",
            )
        )
    header = (
        "space",
        "blocks",
        "measured, ms",
        "error",
        "median",
        "bias",
        "tau",
        "tau of MACs",
        "run's check",
        "seconds",
    )
    table(header, rows)
    if asked.json:
        print(json.dumps(keys))


if __name__ == "__main__":
    main()
