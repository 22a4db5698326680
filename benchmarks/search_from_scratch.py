"""Searches from scratch under the same minutes of one core, their finds trained the same way: cost and accuracy.

Traffic signs, cells of NAS-Bench-201's operations. Random search and evolution measure an architecture by training it
for two epochs (proxy training) on the validation images; DARTS trains the relaxed network. What is found is trained
anew for --epochs and answers the test images. METANAS_DATA names the folder that holds GTSRB.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from benchmarks.rounds import table
from benchmarks.signs import SIZE, SPACE, alone, budget, signs, single_thread
from metanas.api import Architecture, Candidate
from metanas.cost import cost
from metanas.darts import Darts, DartsSettings
from metanas.relaxation import skip_connections
from metanas.seeding import stream, torch_stream
from metanas.standalone import Classification, Training
from metanas.statistics import mean_interval
from metanas.strategies.evolution import Evolution
from metanas.supernet import SuperNet

PROXY = Training(epochs=2)
DARTS = DartsSettings(batch=32, architecture_rate=3e-3, window=3)
"""Smaller batches and a faster architecture than the paper's, for some hundreds of steps in place of 25,000."""
POPULATION, OFFSPRING = 8, 4


@dataclass(frozen=True)
class Found:
    """What a search found, and what it did for it."""

    architecture: Architecture
    effort: str


Search = Callable[[Classification, float, int], Found]
"""From a task, minutes of one core and a seed to what was found."""


def by_hand(task: Classification, minutes: float, seed: int) -> Found:
    """The space's default, without any search."""
    return Found(SPACE.default, "none")


def darts(order: Literal[1, 2], task: Classification, minutes: float, seed: int) -> Found:
    """Gradient descent over the relaxed cells."""
    used = budget(minutes)
    supernet = SuperNet(SPACE, SPACE.initial_weights(torch_stream(seed, "shared weights")))
    search = Darts(supernet, task, replace(DARTS, order=order), seed)
    architecture = search.run(used)
    collapse = "" if search.kept is None else f", collapsed after epoch {search.kept + 1}"
    skips = skip_connections(SPACE, architecture)
    return Found(architecture, f"{search.steps} steps, {skips} skip connections{collapse}")


def random(task: Classification, minutes: float, seed: int) -> Found:
    """The best of uniform draws."""
    rng = stream(seed, "random search")
    return by_proxy(lambda measured: [SPACE.sample(rng)], task, minutes, seed)


def evolution(task: Classification, minutes: float, seed: int) -> Found:
    """NSGA-II; its first population holds the default."""
    rng, strategy = stream(seed, "evolution"), Evolution(SPACE, POPULATION)

    def ask(measured: Sequence[Candidate]) -> list[Architecture]:
        if measured:
            strategy.tell([*strategy.population, *measured])
        return strategy.ask(OFFSPRING if strategy.population else POPULATION, rng)

    return by_proxy(ask, task, minutes, seed)


def by_proxy(
    ask: Callable[[Sequence[Candidate]], Sequence[Architecture]], task: Classification, minutes: float, seed: int
) -> Found:
    """Proxy training of what `ask` proposes on hearing its last proposals' results, one at least, until time is up."""
    used = budget(minutes)
    best: list[Candidate] = []
    measured: list[Candidate] = []
    evaluations = 0
    while used(evaluations) < 1:
        proposals, measured = ask(measured), []
        for architecture in proposals:
            if evaluations and used(evaluations) >= 1:
                break
            reached = alone(architecture, task, PROXY, seed).validation
            measured.append(Candidate(architecture, reached, cost(SPACE, architecture, SIZE)))
            evaluations += 1
        best = [max([*best, *measured], key=lambda candidate: candidate.accuracy)]
    return Found(best[0].architecture, f"{evaluations} evaluations")


STRATEGIES: Mapping[str, Search] = {
    "by hand": by_hand,
    "DARTS, first order": partial(darts, 1),
    "DARTS, second order": partial(darts, 2),
    "evolution": evolution,
    "random": random,
}


def one(name: str, task: Classification, asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A search and the training of its find."""
    started = time.process_time()
    found = STRATEGIES[name](task, asked.minutes, seed)
    minutes = (time.process_time() - started) / 60
    trained = alone(found.architecture, task, Training(epochs=asked.epochs), seed)
    costs = cost(SPACE, found.architecture, SIZE)
    print(f"{name}, seed {seed}: {trained.test:.2%}, {found.effort}", flush=True)
    return {
        "strategy": name,
        "seed": seed,
        "minutes": minutes,
        "effort": found.effort,
        "architecture": found.architecture,
        "params": costs.params,
        "macs": costs.macs,
        "validation": trained.validation,
        "test": trained.test,
    }


def row(runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The means of a strategy's runs; of several the accuracy with its 95% interval."""
    minutes, params, macs = (np.mean([run[key] for run in runs]) for key in ("minutes", "params", "macs"))
    mean, half = mean_interval(np.array([run["test"] for run in runs]))
    spread = f" +- {100 * half:.2f}" if len(runs) > 1 else ""
    return runs[0]["strategy"], f"{minutes:.1f}", f"{params:,.0f}", f"{macs:,.0f}", f"{mean:.2%}{spread}"


def main() -> None:
    """Prints a line a search, then a line a strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="minutes of one core for each search (default 10)")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each strategy (default 3)")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of the final training (default 30)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    single_thread()
    runs: list[dict[str, Any]] = []
    for seed in range(asked.seeds):
        task = signs(seed)
        runs += [one(name, task, asked, seed) for name in STRATEGIES]
    print()
    rows = [row([run for run in runs if run["strategy"] == name]) for name in STRATEGIES]
    table((f"seeds: {asked.seeds}", "minutes", "parameters", "multiply-accumulates", "test accuracy"), rows)
    if asked.json:
        print(json.dumps({"minutes": asked.minutes, "epochs": asked.epochs, "runs": runs}))


if __name__ == "__main__":
    main()
