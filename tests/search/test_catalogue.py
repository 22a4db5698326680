"""Strategies by name: every mistake is one sentence."""

from typing import Any

import numpy as np
import pytest

from metanas.errors import MetanasError
from metanas.search.catalogue import GUIDES, STRATEGIES, asks_for_latency, make_strategy
from metanas.search.objective import LatencyReward
from metanas.strategies.archive import Limits
from metanas.strategies.halving import Asha
from metanas.strategies.regularized import Regularized
from tests.strategies.digits import Digits, cost, measure


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "annealing"}, r"^search\.strategy: there is no strategy 'annealing'; name one of random, "),
        ({"sample": 3}, r"^search\.strategy: there is no strategy None; name one of "),
        (
            {"name": "regularized", "sampel": 3},
            r"the strategy 'regularized' \(its options: sample\): key 'sampel': Extra inputs",
        ),
        ({"name": "regularized", "sample": "many"}, r"the strategy 'regularized' .*: key 'sample': .*got 'many'"),
        ({"name": "evolution", "crossover": "two-point"}, r"key 'crossover': .*'uniform' or 'one-point'"),
        ({"name": "evolution", "costs": ["price"]}, r"costs: 'price' is no cost .*params, macs, latency"),
        ({"name": "guided", "model": "oracle"}, r"no model 'oracle'; name one of trees, .*gaussian process"),
        ({"name": "guided", "model": "graph network"}, r"there is no model 'graph network'; name one of trees, "),
        ({"name": "guided", "acquisition": "pi"}, r"key 'acquisition': .*'ei', 'ucb' or 'thompson'"),
        ({"name": "asha", "over": {"name": "annealing"}}, r"^search\.strategy\.over: there is no strategy 'annealing'"),
        (
            {"name": "asha", "over": {"name": "random", "limits": 3}},
            r"the strategy 'random' \(its options: none\): key 'limits'",
        ),
    ],
)
def test_mistakes_are_named(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        make_strategy(choice, Digits(4), 6)


def test_options_and_limits_reach_the_strategy_inside() -> None:
    limits = Limits(cost, {"params": 5})
    strategy = make_strategy(
        {"name": "asha", "eta": 3, "over": {"name": "regularized", "sample": 2}}, Digits(4), 6, limits
    )
    assert isinstance(strategy, Asha)
    assert (strategy.eta, strategy.size) == (3, 6)
    assert isinstance(strategy.over, Regularized)
    assert (strategy.over.sample, strategy.over.archive.limits) == (2, limits)


@pytest.mark.parametrize(
    ("choice", "asks"),
    [
        ({"name": "evolution"}, False),
        ({"name": "evolution", "costs": ["macs", "latency"]}, True),
        ({"name": "asha", "over": {"name": "evolution", "costs": ["latency"]}}, True),
        ({"name": "asha", "over": {"name": "evolution", "costs": ["params"]}}, False),
        ({"name": "latency"}, False),
        ({"name": "asha", "over": "latency", "costs": None}, False),
    ],
)
def test_latency_is_asked_for_where_a_strategy_has_it_among_its_costs(choice: dict[str, Any], asks: bool) -> None:
    assert asks_for_latency(choice, {}) == asks
    assert asks_for_latency(choice, {"latency": 1.0})
    assert asks_for_latency(choice, {}, LatencyReward(target=1.0))


def test_a_limit_on_no_cost_is_named() -> None:
    with pytest.raises(MetanasError, match=r"limits: 'price' is no cost of an architecture; name some of params, macs"):
        Limits(cost, {"price": 3})


@pytest.mark.parametrize("model", GUIDES)
def test_every_model_that_can_be_named_guides(model: str) -> None:
    strategy = make_strategy({"name": "guided", "model": model, "initial": 6, "pool": 12}, Digits(3), 4)
    rng = np.random.default_rng(0)
    strategy.tell([measure(architecture) for architecture in strategy.ask(6, rng)])
    assert len(set(map(Digits(3).canonical, strategy.ask(3, rng)))) == 3


def test_every_strategy_can_be_named_alone() -> None:
    assert all(make_strategy({"name": name}, Digits(4), 6).population == () for name in STRATEGIES)
