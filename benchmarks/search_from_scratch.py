"""Searches from scratch under the same minutes of one core, their finds trained the same way: cost and accuracy.

Traffic signs, cells of NAS-Bench-201's operations. Random search, evolution and REINFORCE (the controller that writes
architectures) measure one by training it for two epochs (proxy training) on the validation images; ENAS asks the
controller on shared weights; DARTS trains the relaxed network. What is found is trained anew for --epochs and answers
the test images. METANAS_DATA names the folder that holds GTSRB.
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
from metanas.learning.samples import Classification, Samples, draw_batch
from metanas.learning.supernet import SuperNet
from metanas.measuring.cost import cost
from metanas.measuring.oneshot import WARM_UP, OneShot
from metanas.measuring.standalone import accuracy
from metanas.search.catalogue import make_strategy
from metanas.search.controller import Reinforce
from metanas.search.darts import Darts, DartsSettings
from metanas.search.relaxation import skip_connections
from metanas.seeding import stream, torch_stream
from metanas.statistics import mean_interval

PROXY_EPOCHS = 2
DARTS = DartsSettings(batch=32, architecture_rate=3e-3, window=3)
"""Smaller batches and a faster architecture than the paper's, for some hundreds of steps in place of 25,000."""
POPULATION, OFFSPRING = 8, 4
LEARNING = 0.9
"""The part of ENAS' minutes after which nothing learns any more and the controller's draws are compared."""
STEPS = 50
"""Steps of the shared weights between two batches of lessons for the controller."""
REWARD_BATCH = 256
"""Validation images that a reward is measured on."""


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
    collapse = ", collapsed" if search.collapsed else ""
    skips = skip_connections(SPACE, architecture)
    return Found(architecture, f"{search.steps} steps, {skips} skip connections{collapse}")


def by_proxy(choice: Mapping[str, Any], task: Classification, minutes: float, seed: int) -> Found:
    """A strategy by name on proxy training: the best of what it asked for, one at least, until time is up."""
    used, rng = budget(minutes), stream(seed, "search")
    strategy = make_strategy(choice, SPACE, POPULATION)
    measured: list[Candidate] = []
    while used(len(measured)) < 1:
        proposals = strategy.ask(OFFSPRING if measured else POPULATION, rng)
        batch = []
        for architecture in proposals:
            if measured and used(len(measured)) >= 1:
                break
            _, reached = alone(architecture, task, PROXY_EPOCHS, seed)
            batch.append(Candidate(architecture, reached, cost(SPACE, architecture, SIZE)))
            measured.append(batch[-1])
        strategy.tell(batch)
    return Found(most_accurate(measured), f"{len(measured)} evaluations")


def enas(task: Classification, minutes: float, seed: int) -> Found:
    """The controller asked on shared weights, which train on what it samples (Pham et al. 2018, section 2.2).

    In turn some steps of the weights, each on an architecture that the controller draws, and one batch of lessons for
    the controller, whose rewards are accuracies on some validation images. Before, the default network trains the
    weights alone. Of the trained controller's last draws the most accurate on all validation images is taken. Unlike in
    the paper a network that is written again counts with its earlier reward.
    """
    used, rng = budget(minutes), stream(seed, "search")
    shared, strategy = OneShot(SPACE, task, seed), Reinforce(SPACE, POPULATION)

    def learned(steps: int) -> float:
        return used(steps) / LEARNING

    def measure(architectures: Sequence[Architecture], samples: Samples) -> list[Candidate]:
        accuracies = [accuracy(shared.classifier(architecture), samples) for architecture in architectures]
        return [Candidate(a, r, cost(SPACE, a, SIZE)) for a, r in zip(architectures, accuracies, strict=True)]

    shared.run(lambda steps: 1.0 if learned(steps) >= WARM_UP else learned(steps), lambda part, step: [SPACE.default])
    rewards = 0
    while learned(shared.steps) < 1:
        images = draw_batch(task.validation, REWARD_BATCH, rewards, seed, "rewards")
        strategy.tell(measure(strategy.ask(strategy.batch, rng), images))
        rewards += 1
        shared.run(broken_off(learned, shared.steps + STEPS), lambda part, step: strategy.controller.sample(1, step))
    drawn: list[Candidate] = []
    while not drawn or used(shared.steps) < 1:
        drawn += measure(strategy.controller.sample(1, rng), task.validation)
    return Found(most_accurate(drawn), f"{shared.steps} steps, {rewards} lessons, {len(drawn)} draws at the end")


def broken_off(done: Callable[[int], float], end: int) -> Callable[[int], float]:
    """The same budget, over at that step."""
    return lambda steps: 1.0 if steps >= end else done(steps)


def most_accurate(candidates: Sequence[Candidate]) -> Architecture:
    """The first, of equals."""
    return max(candidates, key=lambda candidate: candidate.accuracy).architecture


STRATEGIES: Mapping[str, Search] = {
    "by hand": by_hand,
    "DARTS, first order": partial(darts, 1),
    "DARTS, second order": partial(darts, 2),
    "ENAS": enas,
    "REINFORCE": partial(by_proxy, {"name": "reinforce", "batch": OFFSPRING}),
    "evolution": partial(by_proxy, {"name": "evolution"}),
    "random": partial(by_proxy, {"name": "random"}),
}


def one(name: str, task: Classification, asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A search and the training of its find."""
    started = time.process_time()
    found = STRATEGIES[name](task, asked.minutes, seed)
    minutes = (time.process_time() - started) / 60
    network, validation = alone(found.architecture, task, asked.epochs, seed)
    test = accuracy(network, task.test)
    costs = cost(SPACE, found.architecture, SIZE)
    print(f"{name}, seed {seed}: {test:.2%}, {found.effort}", flush=True)
    return {
        "strategy": name,
        "seed": seed,
        "minutes": minutes,
        "effort": found.effort,
        "architecture": found.architecture,
        "params": costs.params,
        "macs": costs.macs,
        "validation": validation,
        "test": test,
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
