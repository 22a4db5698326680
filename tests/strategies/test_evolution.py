"""Evolution on a small synthetic space whose accuracies are known."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metanas.api import Architecture, Candidate, Cost
from metanas.errors import MetanasError
from metanas.strategies.evolution import Evolution, one_point
from tests.strategies.digits import Digits, measure


def generations(strategy: Evolution, seed: int, count: int, asked: int = 6) -> list[list[Architecture]]:
    rng = np.random.default_rng(seed)
    history = []
    for _ in range(count):
        fresh = strategy.ask(asked, rng)
        history.append(fresh)
        strategy.tell([*strategy.population, *map(measure, fresh)])
    return history


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_no_network_is_proposed_twice(seed: int) -> None:
    strategy = Evolution(Digits(3), size=4)
    asked = [a for fresh in generations(strategy, seed, count=8) for a in fresh]
    keys = [strategy.space.canonical(a) for a in asked]
    assert len(keys) == len(set(keys)), "and what was proposed and lost is not proposed again either"
    members = [strategy.space.canonical(c.architecture) for c in strategy.population]
    assert len(members) == len(set(members)) == 4


def test_the_default_is_the_first_proposal() -> None:
    strategy = Evolution(Digits(4), size=4)
    assert strategy.ask(5, np.random.default_rng(0))[0] == strategy.space.default
    assert strategy.ask(0, np.random.default_rng(0)) == []


def test_an_exhausted_space_gives_fewer_and_then_none() -> None:
    strategy = Evolution(Digits(2), size=3)
    history = generations(strategy, seed=0, count=4)
    asked = {strategy.space.canonical(a) for fresh in history for a in fresh}
    assert asked == Digits(2).different()
    assert [len(fresh) for fresh in history] == [6, 6, 1, 0]


def test_what_was_told_is_not_proposed() -> None:
    strategy = Evolution(Digits(2), size=3)
    told = [(0, 3), (2, 2), (3, 1)]
    strategy.tell([measure(a) for a in told])
    asked = strategy.ask(50, np.random.default_rng(0))
    assert {strategy.space.canonical(a) for a in asked} == Digits(2).different() - {(0, 0), (2, 2), (3, 1)}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=15), st.integers(1, 6))
def test_the_most_accurate_survives(results: list[tuple[int, int]], size: int) -> None:
    strategy = Evolution(Digits(6), size)
    rng = np.random.default_rng(0)
    told = [
        Candidate(architecture, accuracy / 3, Cost(1, macs))
        for architecture, (accuracy, macs) in zip(strategy.ask(len(results), rng), results, strict=True)
    ]
    strategy.tell(told)
    assert len(strategy.population) == min(size, len(told))
    best = max(c.accuracy for c in told)
    assert max(c.accuracy for c in strategy.population) == best
    cheapest_best = min(c.cost.macs for c in told if c.accuracy == best)
    assert any((c.accuracy, c.cost.macs) == (best, cheapest_best) for c in strategy.population)


def test_of_two_that_compute_the_same_one_is_kept() -> None:
    strategy = Evolution(Digits(2), size=4)
    strategy.tell([Candidate((0, 1), 0.5, Cost(1, 1)), Candidate((0, 2), 0.6, Cost(1, 1))])
    assert [c.architecture for c in strategy.population] == [(0, 2)]


def test_the_cheap_end_of_the_front_survives_too() -> None:
    strategy = Evolution(Digits(4), size=2)
    told = [((3, 0, 3, 0), 0.9, 30), ((3, 0, 3, 1), 0.8, 20), ((3, 0, 1, 1), 0.3, 10), ((1, 1, 1, 1), 0.2, 40)]
    strategy.tell([Candidate(a, accuracy, Cost(1, macs)) for a, accuracy, macs in told])
    assert {c.accuracy for c in strategy.population} == {0.9, 0.3}


def test_a_restored_strategy_goes_on_as_if_never_stopped() -> None:
    whole, broken = Evolution(Digits(4), size=5), Evolution(Digits(4), size=5)
    generations(whole, 0, count=3)
    generations(broken, 0, count=3)
    restored = Evolution(Digits(4), size=5)
    state: dict[str, Any] = json.loads(json.dumps(broken.state()))
    restored.restore(state)
    assert restored.population == whole.population
    assert generations(restored, 1, count=3) == generations(whole, 1, count=3)
    assert restored.state() == whole.state()


@pytest.mark.parametrize("seed", range(3))
def test_one_seed_gives_one_course(seed: int) -> None:
    first, second = Evolution(Digits(6), size=6), Evolution(Digits(6), size=6)
    assert generations(first, seed, count=5) == generations(second, seed, count=5)


def _mean_best(propose: Callable[[int], Sequence[Architecture]]) -> float:
    return float(np.mean([max(measure(a).accuracy for a in propose(seed)) for seed in range(20)]))


def test_it_beats_random_search_of_the_same_size() -> None:
    def evolved(seed: int) -> list[Architecture]:
        return [a for fresh in generations(Evolution(Digits(10), size=8), seed, count=15, asked=8) for a in fresh]

    def random(seed: int) -> list[Architecture]:
        rng = np.random.default_rng(seed)
        return [Digits(10).sample(rng) for _ in range(120)]

    assert _mean_best(evolved) > _mean_best(random) + 0.1


def test_one_point_crossover_takes_a_head_from_one_and_a_tail_from_the_other() -> None:
    a, b = (0,) * 6, (1,) * 6
    children = {one_point(a, b, np.random.default_rng(seed)) for seed in range(100)}
    assert children == {(0,) * place + (1,) * (6 - place) for place in range(1, 6)}
    assert one_point((3,), (2,), np.random.default_rng(0)) == (2,)


@pytest.mark.parametrize("costs", [(), ("params",), ("macs", "params")])
def test_survivors_are_those_of_accuracy_and_the_named_costs(costs: tuple[str, ...]) -> None:
    """Here only the first is on every front; the second is cheap in parameters, the third in operations."""
    strategy = Evolution(Digits(4), 2, costs=costs)
    told = [
        Candidate((3, 0, 3, 0), 0.9, Cost(9, 9)),
        Candidate((3, 0, 3, 1), 0.3, Cost(1, 20)),
        Candidate((3, 0, 1, 1), 0.2, Cost(20, 1)),
        Candidate((1, 1, 1, 1), 0.8, Cost(30, 30)),
    ]
    strategy.tell(told)
    expected = {(): {0.9, 0.8}, ("params",): {0.9, 0.3}, ("macs", "params"): {0.3, 0.2}}[costs]
    found = {c.accuracy for c in strategy.population}
    assert found == expected if costs != ("macs", "params") else 0.9 in found and len(found) == 2


def test_a_cost_that_was_not_measured_is_named() -> None:
    strategy = Evolution(Digits(4), 2, costs=["latency"])
    with pytest.raises(MetanasError, match="the cost 'latency' is to be searched by, but is not measured"):
        strategy.tell([measure((1, 1, 1, 1)), measure((1, 1, 1, 2))])


def test_members_measured_again_compete_with_the_latest_measurement() -> None:
    strategy = Evolution(Digits(4), 2, costs=())
    a, b, c = (1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 1, 3)
    strategy.tell([Candidate(x, accuracy, Cost(1, 1)) for x, accuracy in ((a, 0.9), (b, 0.5), (c, 0.4))])
    strategy.tell([Candidate(a, 0.1, Cost(1, 1)), Candidate(c, 0.6, Cost(1, 1))])
    assert [(x.architecture, x.accuracy) for x in strategy.population] == [(c, 0.6), (b, 0.5)]
