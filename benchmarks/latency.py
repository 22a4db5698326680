"""What a latency table of blocks foretells of whole networks that it has not seen, against their measured seconds.

The table is filled from --networks uniform draws of a space, then asked about as many others. One image, one thread.
"""

import argparse
import json
import time

import numpy as np

from benchmarks.rounds import table
from metanas.cost import cost
from metanas.latency import Foretold, LatencyTable, foretell
from metanas.spaces.mobile import Mobile
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages
from predictors.ranking import kendall

SPACES: dict[str, tuple[Space, int]] = {
    "mobile, 32x32": (Mobile(channels=3, norm="sample"), 32),
    "mobile by support, 32x32": (Mobile(channels=3), 32),
    "stages, 28x28": (Stages(), 28),
}


def filled(
    space: Space, size: int, networks: int, rng: np.random.Generator
) -> tuple[LatencyTable, Foretold, np.ndarray]:
    """A table from some draws, its answers about others, and the others' multiply-accumulates."""
    drawn = list(dict.fromkeys(space.sample(rng) for _ in range(2 * networks)))
    found = LatencyTable(space, size)
    for architecture in drawn[:networks]:
        found(architecture)
    others = drawn[networks:]
    return found, foretell(found, others), np.array([cost(space, a, size).macs for a in others])


def main() -> None:
    """Prints errors and rank correlations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=20, help="to fill from, and to ask about (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    rows = []
    keys: dict[str, float] = {}
    for name, (space, size) in SPACES.items():
        started = time.monotonic()
        blocks, found, macs = filled(space, size, asked.networks, np.random.default_rng(asked.seed))
        low, high = 1000 * np.quantile(found.measured, [0, 1])
        numbers = {
            "error": found.error,
            "bias": found.bias,
            "tau": kendall(found.predicted, found.measured),
            "tau_macs": kendall(macs.astype(float), found.measured),
        }
        keys |= {f"{key} {name}": value for key, value in numbers.items()}
        rows.append(
            (
                name,
                str(len(blocks.seconds)),
                f"{low:.2f} to {high:.2f}",
                f"{numbers['error']:.1%}",
                f"{numbers['bias']:+.1%}",
                f"{numbers['tau']:.2f}",
                f"{numbers['tau_macs']:.2f}",
                f"{time.monotonic() - started:.0f}",
            )
        )
    header = ("space", "blocks", "measured, ms", "error", "bias", "tau", "tau of MACs", "seconds")
    table(header, rows)
    if asked.json:
        print(json.dumps(keys))


if __name__ == "__main__":
    main()
