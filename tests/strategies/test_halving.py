"""Who climbs, and when."""

from collections import Counter

import numpy as np
import pytest

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.strategies.halving import Asha, Halving, Hyperband, Race, fidelity
from metanas.strategies.plain import Random
from tests.strategies.digits import Digits, cost, measure

RUNGS = (1 / 9, 1 / 3, 1.0)


def race(kind: type[Race]) -> Race:
    return kind(Digits(6), 4, over=Random(Digits(6), 4), rungs=RUNGS, eta=3)


def run(strategy: Race, asks: int) -> list[tuple[Architecture, int]]:
    """What was asked for, one at a time, with the rung."""
    rng, history = np.random.default_rng(0), []
    for _ in range(asks):
        (architecture,) = strategy.ask(1, rng)
        history.append((architecture, RUNGS.index(fidelity(strategy, architecture))))
        strategy.tell([measure(architecture)])
    return history


def best(architectures: list[Architecture], count: int) -> list[float]:
    return sorted((measure(a).accuracy for a in architectures), reverse=True)[:count]


def test_a_bracket_of_successive_halving_keeps_the_best_third_of_every_rung() -> None:
    history = run(race(Halving), 26)
    for bracket in (history[:13], history[13:]):
        assert [rung for _, rung in bracket] == [0] * 9 + [1] * 3 + [2]
        started, middle, last = ([a for a, rung in bracket if rung == r] for r in range(3))
        assert set(last) < set(middle) < set(started)
        assert [measure(a).accuracy for a in middle] == best(started, 3)
        assert [measure(a).accuracy for a in last] == best(middle, 1)


def test_hyperband_starts_brackets_on_every_rung() -> None:
    """n = ceil(s_max + 1) / (s + 1) eta^s (Li et al. 2018, algorithm 1): 9, then ceil(1.5 x 3) = 5, then 3."""
    rungs = [rung for _, rung in run(race(Hyperband), 13 + 6 + 3 + 13)]
    assert rungs == [0] * 9 + [1] * 3 + [2] + [1] * 5 + [2] + [2] * 3 + [0] * 9 + [1] * 3 + [2]


def test_asha_promotes_whoever_is_in_the_best_third_at_once() -> None:
    strategy = race(Asha)
    history = run(strategy, 200)
    assert [rung for _, rung in history[:5]] == [0, 0, 0, 1, 0], "after three the best of them"
    counts = Counter(rung for _, rung in history)
    assert counts[1] >= counts[0] // 3
    assert counts[2] >= counts[1] // 3
    for rung in (1, 2):
        below, above = ([a for a, r in history if r == at] for at in (rung - 1, rung))
        assert set(above) < set(below)
        assert min(measure(a).accuracy for a in above) >= np.quantile([measure(a).accuracy for a in below], 0.5)


def test_the_strategy_inside_hears_of_the_lowest_rung_alone() -> None:
    inside = Random(Digits(6), 100)
    strategy = Halving(Digits(6), 4, over=inside, rungs=RUNGS, eta=3)
    history = run(strategy, 13)
    assert {c.architecture for c in inside.population} == {a for a, rung in history if rung == 0}


def test_a_result_told_again_stays_on_its_rung_and_a_strangers_is_a_full_one() -> None:
    strategy = Halving(Digits(6), 4, over=Random(Digits(6), 100), rungs=RUNGS, eta=3)
    rungs = [a for a, rung in run(strategy, 5) if rung == 0]
    again = [Candidate(a, 0.125, cost(a)) for a in rungs]
    strategy.tell([*again, *again])
    assert [len(standing) for standing in strategy.standings] == [5, 0, 0]
    assert {c.accuracy for c in strategy.standings[0].values()} == {0.125}
    assert fidelity(strategy, rungs[0]) == RUNGS[0]
    strategy.tell([measure((3,) * 6)])
    assert [len(standing) for standing in strategy.standings] == [5, 0, 1]


def test_a_race_over_a_race_is_refused() -> None:
    with pytest.raises(MetanasError, match="over: a race over a race"):
        Asha(Digits(6), 4, over=race(Halving))


def test_a_batch_does_not_overfill_a_rung_and_a_lost_result_is_replaced() -> None:
    strategy, rng = race(Halving), np.random.default_rng(0)
    asked = strategy.ask(20, rng)
    assert len(asked) == 9
    strategy.tell([measure(a) for a in asked[:8]])  # the ninth failed
    (substitute,) = strategy.ask(1, rng)
    assert fidelity(strategy, substitute) == RUNGS[0]
    strategy.tell([measure(substitute)])
    climbing = strategy.ask(20, rng)
    assert [fidelity(strategy, a) for a in climbing] == [RUNGS[1]] * 3
    (fourth,) = strategy.ask(1, rng)
    assert fidelity(strategy, fourth) == RUNGS[1], "the next best, as long as results are missing"


@pytest.mark.parametrize(
    ("rungs", "eta"), [((), 3), ((0.5,), 3), ((0.5, 0.2, 1.0), 3), ((0.0, 1.0), 3), ((0.5, 1.0), 1)]
)
def test_rungs_that_do_not_ascend_to_a_full_measurement_are_refused(rungs: tuple[float, ...], eta: float) -> None:
    with pytest.raises(MetanasError, match="rungs must ascend from a share above 0 to 1, and eta be above 1"):
        Asha(Digits(6), 4, over=Random(Digits(6), 4), rungs=rungs, eta=eta)
