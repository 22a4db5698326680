"""What every strategy promises, held for each of them by name."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from metanas.api import Architecture, Candidate, Cost
from metanas.errors import MetanasError
from metanas.search.catalogue import STRATEGIES, make_strategy
from metanas.seeding import stream
from metanas.statistics import paired
from metanas.strategies.archive import Limits
from metanas.strategies.halving import fidelity
from metanas.strategies.strategy import Strategy
from tests.strategies.digits import Digits, cost, measure

OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in STRATEGIES},
    **{name: {"name": name, "rungs": [0.05, 1.0], "eta": 10} for name in ("halving", "hyperband", "asha")},
    "evolution over accuracy": {"name": "evolution", "costs": [], "crossover": "one-point", "tournament": 3},
    "guided by confidence": {"name": "guided", "acquisition": "ucb", "initial": 5, "pool": 50},
    "guided by draws": {"name": "guided", "acquisition": "thompson", "initial": 5, "pool": 50},
    "asha over evolution": {"name": "asha", "over": {"name": "regularized"}, "rungs": [0.25, 0.5, 1.0], "eta": 2},
}
HALVING = {"halving", "hyperband"}  # these fill a rung before they ask for more
RACES = {"halving", "hyperband", "asha", "asha over evolution"}
SLOW = {"reinforce", "ppo", "guided", "guided by confidence", "guided by draws"}
SIZE = 6


@pytest.fixture(params=OPTIONS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str, length: int = 5, limits: Limits | None = None) -> Strategy:
    return make_strategy(OPTIONS[name], Digits(length), SIZE, limits)


def course(
    strategy: Strategy, seed: int, rounds: int, count: int = 4, fails: Callable[[int], bool] = lambda i: False
) -> Iterator[list[Architecture]]:
    """What is asked for, round after round, when all but the `fails` evaluations are told."""
    rng, number = np.random.default_rng(seed), 0
    for _ in range(rounds):
        asked = strategy.ask(count, rng)
        told = []
        for architecture in asked:
            if not fails(number):
                told.append(measure(architecture))
            number += 1
        strategy.tell(told)
        yield asked


def rounds_of(name: str) -> int:
    return 6 if name in SLOW else 20


def test_what_is_asked_for_is_valid_new_and_no_more_than_asked(name: str) -> None:
    strategy = make(name)
    space, keys, last = Digits(5), list[Architecture](), dict[Architecture, float]()
    rng = np.random.default_rng(0)
    assert strategy.population == ()
    assert strategy.ask(0, rng) == []
    for _ in range(rounds_of(name)):
        asked = strategy.ask(4, rng)
        assert 1 <= len(asked) <= 4
        assert len(asked) == 4 or name in HALVING
        for architecture in asked:
            space.check(architecture)
            key = space.canonical(architecture)
            assert fidelity(strategy, architecture) > last.get(key, 0), "again only for more of a measurement"
            last[key] = fidelity(strategy, architecture)
            keys.append(key)
        strategy.tell([measure(architecture) for architecture in asked])
    assert name in RACES or len(set(keys)) == len(keys)


def test_the_population_is_of_different_told_networks(name: str) -> None:
    strategy = make(name)
    asked = [a for fresh in course(strategy, 0, rounds_of(name)) for a in fresh]
    members = [Digits(5).canonical(c.architecture) for c in strategy.population]
    assert len(members) == len(set(members)) == SIZE
    assert {c.architecture for c in strategy.population} <= set(asked)
    assert all(c == measure(c.architecture) for c in strategy.population)


def test_one_seed_gives_one_course(name: str) -> None:
    first, second = (list(course(make(name), 3, rounds_of(name))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_restored_strategy_goes_on_as_if_never_stopped(name: str, done: int) -> None:
    """Interrupted between an ask and its tell, with failures before."""
    whole, broken = make(name), make(name)
    for strategy in (whole, broken):
        list(course(strategy, 0, done, fails=lambda i: i % 3 == 1))
    lost = [strategy.ask(3, np.random.default_rng(1)) for strategy in (whole, broken)]
    assert lost[0] == lost[1]
    restored = make(name)
    restored.restore(json.loads(json.dumps(broken.state())))
    assert restored.population == whole.population
    assert [fidelity(restored, a) for a in lost[0]] == [fidelity(whole, a) for a in lost[0]]
    for strategy in (whole, restored):
        strategy.tell([measure(a) for a in lost[0]])
    assert list(course(restored, 2, 4)) == list(course(whole, 2, 4))
    assert json.dumps(restored.state()) == json.dumps(whole.state())


def test_failures_and_results_out_of_order_do_no_harm(name: str) -> None:
    strategy, rng = make(name), np.random.default_rng(0)
    waiting: list[Architecture] = []
    for step in range(5 * rounds_of(name)):
        asked = strategy.ask(1, rng)
        assert len(asked) == 1
        waiting += asked
        if step % 3:  # results lag behind, come in any order, and some never come
            architecture = waiting.pop(int(rng.integers(len(waiting))))
            if rng.random() < 0.7:
                strategy.tell([measure(architecture)])
    assert strategy.population


def test_when_all_fail_it_goes_on_asking(name: str) -> None:
    strategy = make(name)
    asked = [a for fresh in course(strategy, 0, 10, fails=lambda i: True) for a in fresh]
    assert len(asked) == 40 or name in HALVING
    assert strategy.population == ()


def test_duplicates_and_strangers_may_be_told(name: str) -> None:
    strategy, rng = make(name), np.random.default_rng(0)
    strategy.tell([])
    for _ in range(4):
        asked = strategy.ask(4, rng)
        strangers = [Digits(5).sample(rng) for _ in range(3)]
        told = [measure(a) for a in (*asked, *strangers)]
        strategy.tell(told)
        strategy.tell(told[::-1])
        members = [Digits(5).canonical(c.architecture) for c in strategy.population]
        assert len(members) == len(set(members))


def test_a_measurement_replaces_an_earlier_one(name: str) -> None:
    strategy = make(name)
    strategy.tell([Candidate((1, 2, 1, 1, 1), 0.5, Cost(1, 1))])
    strategy.tell([Candidate((1, 2, 1, 1, 1), 0.25, Cost(1, 1))])
    assert [c.accuracy for c in strategy.population] == [0.25]


def test_an_exhausted_space_gives_fewer_and_then_none(name: str) -> None:
    strategy, space = make(name, length=2), Digits(2)
    asked = list(course(strategy, 0, 20))
    assert {space.canonical(a) for fresh in asked for a in fresh} == space.different()
    assert asked[-1] == []


def test_limits_are_kept(name: str) -> None:
    limits = Limits(cost, {"params": 4})
    strategy = make(name, limits=limits)
    strategy.tell([measure((3, 3, 3, 3, 3))])  # a stranger beyond the limits, such as the default network
    asked = [a for fresh in course(strategy, 0, 5) for a in fresh]
    assert len(asked) == 20 or name in HALVING
    assert all(sum(a) <= 4 for a in asked)
    assert all(sum(c.architecture) <= 4 for c in strategy.population)


def test_limits_that_hardly_anything_meets_are_met(name: str) -> None:
    """One of 4^8 architectures, which no draws of thousands would find."""
    strategy = make(name, length=8, limits=Limits(lambda a: Cost(1 + sum(a), 1), {"params": 1}))
    asked = [a for fresh in course(strategy, 0, 3) for a in fresh]
    assert set(asked) == {(0,) * 8}


def test_limits_that_nothing_meets_are_an_error_and_no_endless_loop(name: str) -> None:
    strategy = make(name, limits=Limits(cost, {"macs": 9}))
    with pytest.raises(
        MetanasError, match=r"limits: none of .* stays within macs 9; the closest .* has macs 10: raise"
    ):
        strategy.ask(3, np.random.default_rng(0))


@pytest.mark.parametrize("name", set(OPTIONS) - {"random", "exhaustive"})
def test_it_is_better_than_random(name: str) -> None:
    """Paired over seeds, after as many full measurements."""

    def best(name: str, seed: int) -> float:
        strategy, rng, spent, found = make(name, 8), stream(seed, "better"), 0.0, 0.0
        while spent < 60:
            for architecture in (asked := strategy.ask(5, rng)):
                share = fidelity(strategy, architecture)
                spent += share
                if share == 1:
                    found = max(found, measure(architecture).accuracy)
            strategy.tell([measure(a) for a in asked])
        return found

    seeds = range(6 if name in SLOW else 20)
    result = paired(np.array([best(name, s) for s in seeds]), np.array([best("random", s) for s in seeds]))
    assert result.difference > 0
    assert result.p < 0.05, result
