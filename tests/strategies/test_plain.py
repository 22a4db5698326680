"""Exhaustive and local search, and regularized evolution, on a space whose accuracies are known."""

import numpy as np
import pytest

from metanas.api import Candidate, Cost
from metanas.errors import MetanasError
from metanas.spaces.genes import Genes, enumerated, neighbours
from metanas.strategies.archive import Limits
from metanas.strategies.plain import Exhaustive, LocalSearch, Random
from metanas.strategies.regularized import Regularized
from tests.strategies.digits import Digits, cost, measure


def test_exhaustive_search_finds_the_best_of_all() -> None:
    strategy, rng = Exhaustive(Digits(3), 1), np.random.default_rng(0)
    while asked := strategy.ask(7, rng):
        strategy.tell([measure(a) for a in asked])
    assert strategy.population[0].architecture == (3, 0, 3)
    assert len(strategy.archive) == len(Digits(3).different())


def test_exhaustive_search_finds_all_within_limits_and_says_so_when_there_are_none() -> None:
    rng, within = np.random.default_rng(0), {a for a in Digits(3).different() if sum(a) <= 1}
    strategy = Exhaustive(Digits(3), 1, limits=Limits(cost, {"params": 1}))
    strategy.tell([measure((3, 3, 3))])
    assert set(strategy.ask(100, rng)) == within
    assert strategy.ask(100, rng) == []
    with pytest.raises(MetanasError, match="none of all architectures of the space 'digits' stays within params -1"):
        Exhaustive(Digits(3), 1, limits=Limits(cost, {"params": -1})).ask(1, rng)


def test_all_that_tight_limits_leave_is_found_one_by_one() -> None:
    """Eight networks among 4^8 architectures."""
    space, rng = Digits(8), np.random.default_rng(0)
    strategy, found = Random(space, 4, limits=Limits(cost, {"params": 1})), set[tuple[int, ...]]()
    while asked := strategy.ask(4, rng):
        found |= {space.canonical(architecture) for architecture in asked}
        strategy.tell([measure(architecture) for architecture in asked])
    ones = {tuple(int(i == place) for i in range(8)) for place in (0, 2, 3, 4, 5, 6, 7)}
    assert found == {(0,) * 8, *ones}


def test_local_search_without_a_start_is_refused() -> None:
    with pytest.raises(MetanasError, match="starts must be at least 1, but is 0"):
        LocalSearch(Digits(3), 1, starts=0)


def test_exhaustive_search_of_a_large_space_is_refused() -> None:
    with pytest.raises(MetanasError, match=r"has 1\.05e\+06 architectures, too many for the exhaustive strategy"):
        Exhaustive(Digits(10), 1)


def test_enumeration_and_neighbours_are_those_of_the_definition() -> None:
    space = Genes("mixed", (2, 1, 3))
    every = [enumerated(space, i) for i in range(space.size())]
    assert every == sorted(set(every))
    assert len(every) == 6
    for a in every:
        assert set(neighbours(space, a)) == {b for b in every if sum(x != y for x, y in zip(a, b, strict=True)) == 1}


def test_local_search_climbs_to_the_top_and_starts_again() -> None:
    """Without the second gene's exception every step up is one gene, so a climb never sticks."""
    strategy, rng, accuracies = LocalSearch(Digits(5), 3, starts=1), np.random.default_rng(0), list[float]()
    for _ in range(60):
        (architecture,) = strategy.ask(1, rng)
        accuracies.append(measure(architecture).accuracy)
        strategy.tell([measure(architecture)])
    top = accuracies.index(1.0)
    # At most 15 neighbours for each of at most 5 steps.
    assert top <= 60
    assert strategy.population[0].accuracy == 1


def test_the_oldest_dies_and_not_the_worst() -> None:
    strategy = Regularized(Digits(4), 3, sample=3)
    told = [Candidate((1, 1, 1, i), accuracy, Cost(1, 1)) for i, accuracy in enumerate((0.9, 0.1, 0.5, 0.3))]
    strategy.tell(told[:3])
    strategy.tell(told[3:])
    assert [c.accuracy for c in strategy.population] == [0.1, 0.5, 0.3]
    strategy.tell([Candidate((1, 1, 1, 1), 0.2, Cost(1, 1))])  # measured again, it keeps its age
    assert [c.accuracy for c in strategy.population] == [0.2, 0.5, 0.3]
    strategy.tell(told[:1])  # and what has died stays dead, as the default network that every generation measures
    assert [c.accuracy for c in strategy.population] == [0.2, 0.5, 0.3]


def test_children_are_mutations_of_the_best_of_the_sample() -> None:
    strategy = Regularized(Digits(4), 3, sample=3)
    strategy.tell([measure(a) for a in ((3, 0, 3, 1), (1, 1, 1, 1), (2, 2, 2, 2))])
    children = strategy.ask(5, np.random.default_rng(0))
    assert set(children) <= set(neighbours(Digits(4), (3, 0, 3, 1)))


def test_the_sample_must_lie_within_the_population() -> None:
    assert Regularized(Digits(4), 100).sample == 25
    with pytest.raises(MetanasError, match="sample must be from 1 to the population, which is 3, but is 25"):
        Regularized(Digits(4), 3, sample=25)
